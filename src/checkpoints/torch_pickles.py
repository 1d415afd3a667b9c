"""What `torch.save` pickles, read without running any code that is in it, and without PyTorch.

Each name in a pickle stands for something of this module: storages, tensors and NumPy's arrays
become descriptions, whose numbers are read later or not at all. Training scripts save more than
that, their arguments, metrics and hyper-parameters; a whole network is nothing but such objects.
Each of them becomes a `StandIn`, which keeps the attributes and nothing else.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any, BinaryIO, Dict, NamedTuple, Optional, Set, Tuple

from ..errors import on_one_line
from ..runtime.pickles import InertUnpickler, Stateful

# Names of modules whose mention is no accident.
_REFUSED = ("os", "posix", "nt", "sys", "subprocess")
# What nobody misses: of these modules anything, of Python's own the containers.
_PLAIN = ("torch", "numpy", "collections", "argparse")
_CONTAINERS = ("set", "frozenset", "complex", "bytearray", "slice", "range", "object")
# Classes of storages -> types, by torch's names.
STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "bytes",
}
_LATER_TYPES = (
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)


class RefusedObject(ValueError):
    """A pickle names something that runs commands; the message is its name."""


class StandIn(Stateful, OrderedDict):
    """What any unknown class or function of a pickle is: makes dicts that take attributes."""

    def __new__(cls, *_: object, **__: object) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({k: v for k, v in part.items() if isinstance(k, str)})

    def append(self, item: object) -> None:
        """Of a list's subclass; its items are no weights."""

    def extend(self, items: object) -> None:
        """As `append`."""


class _Items(StandIn):
    """OrderedDict; Python 2 pickled its items as its argument."""

    def __init__(self, pairs: object = (), *_: object) -> None:
        super().__init__()
        for pair in pairs if isinstance(pairs, (list, tuple)) else ():
            if isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str):
                self[pair[0]] = pair[1]


class Storage(NamedTuple):
    """Numbers in the file.

    Attributes:
        key: which.
        dtype: by torch's name; "bytes": that of the tensor.
        whole: numbers under that key.
        start, numel: the part of them that this is.
    """

    key: str
    dtype: str
    whole: int
    start: int
    numel: int


class StoredTensor(NamedTuple):
    """A tensor whose numbers are in the file; strides in numbers."""

    storage: Storage
    offset: int
    shape: Tuple[int, ...]
    strides: Tuple[int, ...]
    dtype: str


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> StoredTensor:
    return _tensor_of_type(storage, offset, shape, strides, None, None, storage.dtype)


def _tensor_of_type(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, str):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of shape {on_one_line(shape)}")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides), dtype)


def _of_subclass(rebuild: Any, _: object, arguments: Any, *__: object) -> Any:
    if rebuild not in _REBUILDERS.values():
        raise pickle.UnpicklingError("a tensor of an unknown kind")
    return rebuild(*arguments)


_REBUILDERS: Dict[Tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
}
_MEANT: Dict[Tuple[str, str], Any] = {
    **_REBUILDERS,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_subclass,
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
    ("collections", "OrderedDict"): _Items,
}
_TYPES = {*STORAGE_TYPES.values(), *_LATER_TYPES}


class WeightsUnpickler(InertUnpickler):
    """Reads what `torch.save` pickled; see `InertUnpickler`.

    Attributes:
        unknown: names of the objects that were passed by.
        storages: by their keys.
    """

    def __init__(self, file: BinaryIO, *, most_bytes: int) -> None:
        super().__init__(file, most_bytes=most_bytes)
        self.unknown: Set[str] = set()
        self.storages: Dict[str, Storage] = {}

    def find_other(self, module: str, name: str) -> Any:
        """See `InertUnpickler`. Raises RefusedObject."""
        root = module.split(".")[0]
        if root in _REFUSED:
            raise RefusedObject(on_one_line(f"{module}.{name}"))
        if module in ("torch", "torch.storage") and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if module == "torch" and name in _TYPES:
            return name
        is_plain = root in _PLAIN or name in _CONTAINERS or (module, name) in _MEANT
        if not is_plain:
            self.unknown.add(on_one_line(f"{module}.{name}"))
        return _MEANT.get((module, name), StandIn)

    def persistent_load(self, pid: Any) -> Any:
        """A storage; before torch 1.6 a class of a network too."""
        kind, *rest = pid if isinstance(pid, tuple) else (None,)
        if kind in ("module", b"module"):
            return rest[0]
        if kind not in ("storage", b"storage"):
            raise pickle.UnpicklingError("an object kept elsewhere")
        dtype, key, _, numel, *view = rest
        start, part = 0, numel
        if view and view[0] is not None:
            _, start, part = view[0]
        if dtype not in _TYPES or not all(type(n) is int and n >= 0 for n in (numel, start, part)):
            raise pickle.UnpicklingError("a storage without a type or size")
        return self._known(Storage(str(key), dtype, numel, start, part))

    def _known(self, storage: Storage) -> Storage:
        first = self.storages.setdefault(storage.key, storage)
        is_same = (first.dtype, first.whole) == (storage.dtype, storage.whole)
        if not is_same or storage.start + storage.numel > storage.whole:
            raise pickle.UnpicklingError(f"storage {on_one_line(storage.key)} has two sizes")
        return storage


def is_module(value: Any) -> bool:
    """Whether this was a network."""
    return isinstance(value, StandIn) and isinstance(getattr(value, "_modules", None), dict)


# Networks have some thousands, and names of some ten parts.
_MOST_WEIGHTS, _LONGEST_NAME = 100_000, 1_000


def state_of(module: Any) -> Optional[Dict[str, Any]]:
    """The state_dict of a network that was saved whole; None: it is none.

    Raises:
        ValueError: modules that hold each other.
    """
    if not is_module(module):
        return None
    found: Dict[str, Any] = {}
    pending, met = [("", module)], 0
    while pending:
        prefix, module = pending.pop()
        met += 1
        if met > _MOST_WEIGHTS or len(prefix) > _LONGEST_NAME:
            raise ValueError("modules that hold each other")
        passing = getattr(module, "_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            held = getattr(module, kind, None) or {}
            kept = {n: v for n, v in held.items() if v is not None and n not in passing}
            found.update({f"{prefix}{n}": v for n, v in kept.items()})
        inner = [(f"{prefix}{n}.", child) for n, child in module._modules.items()]
        pending += reversed([(name, child) for name, child in inner if is_module(child)])
    return found
