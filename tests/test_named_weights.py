"""Weights by their published names: the logits of timm with timm's own transform, from JPEGs."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import pytest
from photographs import load_photographs
from PIL import Image
from torch_oracle import timm, torch

pytest.importorskip("huggingface_hub")
from hub_server import HubServer, hub
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from src.args import Config, parse_args
from src.checkpoints import named_weights
from src.checkpoints.checkpoint import read_checkpoint
from src.checkpoints.named_weights import is_name, local_checkpoint, stage_weights
from src.errors import UserError
from src.models.published import find_published

# Compiling so many graphs takes minutes.
pytestmark = pytest.mark.usefixtures("pynative")

SMALL = "test_convnext.r160_in1k"
# All families, and every kind of transform; the ones that take longest are slow.
NAMES = {
    SMALL: False,
    "test_convnext3.r160_in1k": True,
    "convnext_atto_ols.a2_in1k": True,
    "deit_tiny_patch16_224.fb_in1k": False,
    "convnext_zepto_rms.ra4_e3600_r224_in1k": True,
    "convnext_nano.r384_in12k_ft_in1k": True,
    "convnext_tiny.fb_in22k_ft_in1k_384": True,
    "convnext_base.clip_laion2b_augreg_ft_in1k": True,
    "convnextv2_atto.fcmae_ft_in1k": True,
    "deit3_small_patch16_384.fb_in22k_ft_in1k": True,
    "deit_small_distilled_patch16_224.fb_in1k": True,
    "twins_pcpvt_small.in1k": True,
    "twins_svt_small.in1k": True,
    "convmixer_1024_20_ks9_p14.in1k": True,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, and caches of the test alone: a conversion of an earlier one would hide a fault."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local_checkpoint.cache_clear()
    with hub(tmp_path / "hub") as found:
        yield found


def publish(server: HubServer, name: str, *, owner: str = "timm", **keywords: Any) -> Any:
    """timm's network with random weights, put at the hub as timm does."""
    torch.manual_seed(0)
    network = timm.create_model(name, **keywords).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # layer scales of 1e-6 would hide the blocks
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = server.folder / owner / name
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"architecture": name.partition(".")[0], "num_classes": network.num_classes}
    config["pretrained_cfg"] = {
        key: value for key, value in network.pretrained_cfg.items() if value is not None
    }
    (folder / "config.json").write_text(json.dumps(config))
    return network


@pytest.fixture
def images(tmp_path: Path) -> List[Path]:
    paths = []
    for label in ("a", "b"):
        (tmp_path / "data" / "val" / label).mkdir(parents=True)
    for number, photograph in enumerate(load_photographs()[:2]):
        path = tmp_path / "data" / "val" / "ab"[number] / f"{number}.jpg"
        photograph.resize((500, 333 + 100 * number)).save(path, quality=95)
        paths.append(path)
    return paths


def timms_logits(network: Any, paths: List[Path]) -> np.ndarray:
    settings = timm.data.resolve_data_config({}, model=network)
    transform = timm.data.create_transform(**settings, is_training=False)
    batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    with torch.no_grad():
        return network(batch).numpy()


def our_logits(name: str, paths: List[Path]) -> np.ndarray:
    from src.args import PredictRun, parse_args
    from src.report.image_files import ImageStream
    from src.serving.complete_config import complete_by_file
    from src.serving.predictor import open_predictor

    config = stage_weights(complete_by_file(parse_args(["--pretrained", name], PredictRun)))
    predictor = open_predictor(config)
    stream = ImageStream.of_config(predictor.config, paths[0].parent, [str(p) for p in paths])
    return np.concatenate([predictor(batch.image) for batch in stream])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if slow else []) for n, slow in NAMES.items()],
)
def test_logits_are_timms(
    server: HubServer, images: List[Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    network = publish(server, name)
    expected = timms_logits(network, images)
    found = our_logits(name, images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    for ours, theirs in zip(found, expected):
        assert np.argsort(-ours)[:5].tolist() == np.argsort(-theirs)[:5].tolist()
    record = read_checkpoint(local_checkpoint(name)).record
    row = find_published(name)
    assert f"licence {row.licence}" in caplog.text
    assert (record.published, record.licence) == (row.hub_name, row.licence)
    imagenet = ImageNetInfo("imagenet-1k").label_names()
    assert record.class_names == (imagenet if network.num_classes == 1000 else None)


def test_a_teacher_has_a_name_too(server: HubServer) -> None:
    publish(server, SMALL)
    config = stage_weights(parse_args(["--teacher_pretrained", SMALL], Config))
    assert config.optim.teacher_pretrained == str(local_checkpoint(SMALL))


@pytest.fixture
def authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Another server, which has the file that the table names for SMALL; the hub has none."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    theirs = HubServer(tmp_path / "authors")
    network = publish(theirs, SMALL)
    folder = theirs.folder / "timm" / SMALL
    torch.save({"model": network.state_dict()}, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    (folder / "w.pth").rename(folder / f"w-{digest[:8]}.pth")
    (folder / "model.safetensors").unlink()
    url = f"{theirs.url}/timm/{SMALL}/resolve/main/w-{digest[:8]}.pth"
    row = find_published(SMALL)._replace(url=url)
    monkeypatch.setattr(named_weights, "find_published", lambda _: row)
    yield theirs
    theirs.close()


def test_the_authors_file_where_the_hub_has_none(
    server: HubServer, authors: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = local_checkpoint(SMALL)
    checkpoint = read_checkpoint(path)
    expected = timm.create_model(SMALL).state_dict().keys()
    assert len(checkpoint.tensors) == len(expected)
    assert checkpoint.record.published == f"timm/{SMALL}"
    assert "taking the authors' file" in caplog.text
    asked = list(server.requests), list(authors.requests)
    assert all(asked)
    local_checkpoint.cache_clear()
    assert local_checkpoint(SMALL) == path
    assert (server.requests, authors.requests) == asked


def test_authors_files_of_another_content_are_refused(
    server: HubServer, authors: HubServer
) -> None:
    (file,) = (authors.folder / "timm" / SMALL).glob("*.pth")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    for _ in range(2):
        with pytest.raises(UserError, match=r"has the SHA-256 .* it was deleted; run it again"):
            local_checkpoint(SMALL)


def test_neither_has_it(server: HubServer, authors: HubServer) -> None:
    authors.status = 404
    with pytest.raises(UserError, match=f"pretrained '{SMALL}': nor its authors' file"):
        local_checkpoint(SMALL)


def test_offline_nobody_is_asked(
    server: HubServer, authors: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        local_checkpoint(SMALL)
    assert not server.requests
    assert not authors.requests


def test_a_damaged_conversion_is_made_anew(server: HubServer) -> None:
    publish(server, SMALL)
    path = local_checkpoint(SMALL)
    whole = path.read_bytes()
    downloads = list(server.requests)
    path.write_bytes(whole[: len(whole) // 2])
    local_checkpoint.cache_clear()
    assert local_checkpoint(SMALL) == path
    assert path.read_bytes() == whole
    assert [r for r in server.requests[len(downloads) :] if r.startswith("GET")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SMALL, True),
        (f"timm/{SMALL}", True),
        ("hf-hub:anybody/anything", True),
        ("convnext_tiny", True),
        ("convnext_tiny.ckpt", False),
        ("convnext_tiny.pth", False),
        ("weights/convnext_tiny.fb_in1k", False),
        ("best.ckpt", False),
    ],
)
def test_what_is_a_name(text: str, expected: bool) -> None:
    assert is_name(text) == expected
