"""Weights of other libraries as a checkpoint of ours."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import yaml
from mindspore import Tensor

from ..args import Config
from ..errors import UserError
from ..models.classifier import Classifier
from ..models.family import Naming
from ..models.published import TRANSFORM
from ..models.registry import create_model, resolve
from ..runtime.memory import Allowance
from .checkpoint import Checkpoint, find_mismatches, load_parameters, save_checkpoint
from .pretrained import complete, find_sizes, regenerate_sine_tables, reset_classifiers
from .saved_record import SavedRecord
from .weight_conversion import to_network_names
from .weight_files import Arrays, read_weights, weights_sha256
from .weights_origin import WeightsOrigin, find_origin

# Networks of one size that a file may hold, and what is always allowed, bytes.
_NETWORKS, _LEAST_ROOM = 4, 2**28
# Tensors of each kind that are listed when one does not fit.
_SHOWN = 10


@dataclass(frozen=True)
class Request:
    """What is to be converted, and what somebody says of it.

    Attributes:
        path: of the weights.
        arch: None: what `name` or what lies beside the file says.
        name: that they were published by.
        keys: values of TRANSFORM, `num_classes` and `image_size` that go before what is known.
        ema, key, prefix: which of a file's weights, as `read_weights` and `to_network_names` have
            it.
        repository: `OWNER/NAME` of the hub that the file is from.
    """

    path: Path
    arch: Optional[str] = None
    name: Optional[str] = None
    keys: Dict[str, Any] = field(default_factory=dict)
    ema: bool = False
    key: Optional[str] = None
    prefix: Optional[str] = None
    repository: Optional[str] = None


@dataclass(frozen=True)
class Conversion:
    """A network with the weights, and what its checkpoint says."""

    network: Classifier
    naming: Naming
    record: SavedRecord
    notes: List[str]

    def save(self, path: Path) -> None:
        save_checkpoint(path, self.network.get_parameters(), self.record.as_json())


def convert_file(request: Request) -> Conversion:
    """Reads and renames weights, and finds out how their images are made.

    Raises:
        UserError: nothing says the architecture; weights that do not fit it.
    """
    origin = find_origin(request.path, request.name)
    arch = request.arch or (origin.arch if origin else None)
    if arch is None:
        raise UserError(
            f"arch: not given, and neither the name of {str(request.path)!r} nor a config.json "
            "beside it says it; give --arch, or --name with one of scripts/list_models.py "
            "--pretrained"
        )
    said = {**(origin.keys if origin else {}), **request.keys}
    network, arrays, naming, sizes = _read(request, arch, said)
    arrays = complete(regenerate_sine_tables(arrays, network), network)
    if "num_classes" in request.keys:
        arrays = reset_classifiers(arrays, network)
    tensors = {name: Tensor(value) for name, value in arrays.items()}
    load_all(network, Checkpoint(request.path, tensors, SavedRecord()), arch)
    own = Config().data
    images = {key: said.get(key, getattr(own, key)) for key in TRANSFORM}
    record = SavedRecord(
        arch=arch,
        num_classes=network.num_classes,
        config=_recipe({"arch": arch, "num_classes": network.num_classes, **sizes, **images}),
        source=request.path.name,
        sha256=weights_sha256(request.path),
        naming=naming.source,
        ema=request.ema,
        published=request.repository or (origin.published if origin else None),
        licence=origin.licence if origin else None,
        class_names=_class_names(origin, network),
    )
    return Conversion(network, naming, record, _notes(images, origin, request))


def load_all(network: Classifier, checkpoint: Checkpoint, arch: str) -> None:
    """Sets every weight; lists tensors that do not fit, when one does not.

    Raises:
        UserError: one does not fit.
    """
    parameters = list(network.get_parameters())
    for title, tensors in find_mismatches(parameters, checkpoint.tensors).items():
        lines = [f"{title}: {tensor}" for tensor in tensors[:_SHOWN]]
        lines += [f"{title}: {len(tensors)} in all"] if len(tensors) > _SHOWN else []
        print("\n".join(lines), file=sys.stderr)
    load_parameters(parameters, checkpoint, target=f"arch {arch}")


def _class_names(origin: Optional[WeightsOrigin], network: Classifier) -> Optional[List[str]]:
    names = origin.class_names if origin else None
    return names if names and len(names) == network.num_classes else None


def _recipe(keys: Dict[str, Any]) -> str:
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in keys.items()}
    return str(yaml.safe_dump(plain, default_flow_style=None, sort_keys=False))


def _notes(images: Dict[str, Any], origin: Optional[WeightsOrigin], request: Request) -> List[str]:
    """What the user is told of images and terms."""
    shown = ", ".join(f"{k} {list(v) if isinstance(v, tuple) else v}" for k, v in images.items())
    if origin:
        notes = [f"images: {shown} (by {origin.said_by})"]
        return [*notes, f"licence: {origin.licence}"] if origin.licence else notes
    left = [key for key in TRANSFORM if key not in request.keys]
    if not left:
        return [f"images: {shown}"]
    return [
        f"images: {shown}; {', '.join(left)} by default, because nothing says how these weights' "
        "are made; give --name NAME (scripts/list_models.py --pretrained), the hub's config.json "
        f"beside the file, or {', '.join(f'--{key}' for key in left)}"
    ]


def _read(
    request: Request, arch: str, said: Dict[str, Any]
) -> Tuple[Classifier, Arrays, Naming, Dict[str, int]]:
    """A network as large as the weights are where nobody said it, the weights, and its size."""
    given: Dict[str, Any] = {
        "num_classes": request.keys.get("num_classes"),
        "img_size": said.get("image_size"),
    }
    if said.get("num_classes") == 0:
        given["num_classes"] = 0  # the file has no classifier that could tell
    network = create_model(arch, **given)
    arrays = read_weights(
        request.path, ema=request.ema, key=request.key, room=_room_for(network, arch)
    )
    arrays, naming = to_network_names(
        arrays, network, arch=arch, source=request.path, ema=request.ema, prefix=request.prefix
    )
    side = resolve(arch, **given)[1]["img_size"]
    own = [key for key, value in given.items() if value is not None]
    free = find_sizes(arrays, network, img_size=side, given=own)
    if free:
        network = create_model(arch, **{**given, **free})
    size = free.get("img_size", given["img_size"])
    sizes = {"image_size": size} if size else {}
    if "in_chans" in free:
        sizes["in_chans"] = free["in_chans"]
    return network, arrays, naming, sizes


def _room_for(network: Classifier, arch: str) -> Allowance:
    """For the weights of a file: it may hold a teacher beside the network, or other classes."""
    own = 4 * sum(parameter.size for parameter in network.get_parameters())
    return Allowance(max(_NETWORKS * own, _LEAST_ROOM), f"files of {arch} may take")
