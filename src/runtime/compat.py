"""What differs between MindSpore 2.0 and 2.10. No other module asks for the version."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn


def set_device(device_target: str, device_id: int) -> None:
    """Selects the device; `set_context` for it is deprecated from 2.5 on."""
    if hasattr(ms, "set_device"):
        ms.set_device(device_target, device_id)
    else:
        ms.set_context(device_target=device_target, device_id=device_id)


def show_only_errors() -> None:
    """What MindSpore logs to files is repeated on the screen from errors on.

    For its Python part the variable GLOG_stderrthreshold does it; its C++ part, 2.0 and 2.10, does
    not read that and repeats warnings.
    """
    for path in (Path(ms.__file__).parent / "lib").glob("lib*glog.so*"):
        with contextlib.suppress(OSError, ValueError):
            library = ctypes.CDLL(str(path))
            # fLI::FLAGS_stderrthreshold; 2: glog's ERROR.
            ctypes.c_int32.in_dll(library, "_ZN3fLI21FLAGS_stderrthresholdE").value = 2


def has_jit_levels() -> bool:
    """From 2.3 on it can be said how far graphs are compiled."""
    return tuple(int(part) for part in ms.__version__.split(".")[:2]) >= (2, 3)


def set_jit_level(level: str) -> None:
    """O0, O1 or O2, for all graphs compiled from now on."""
    ms.set_context(jit_config={"jit_level": level})


def has_cpu_kernels() -> bool:
    """Whether the fast forms of `src/kernels` are tried with this version; others run without."""
    return hasattr(ms, "set_device")


def ascend_soc() -> str:
    """Generation of the chip in use: `ascend910`, `ascend910b`, `ascend910_93`; empty: not told."""
    from mindspore._c_expression import MSContext

    tell = getattr(MSContext.get_instance(), "get_ascend_soc_version", None)
    return str(tell()) if tell else ""


def is_for_first_ascend_only() -> bool:
    """2.0 knows one generation of training chips, and treats every Ascend as that one."""
    return not hasattr(ms, "set_device")


def has_bfloat16() -> bool:
    """Whether this version has the type at all."""
    return hasattr(ms, "bfloat16")


def max_device_memory() -> int:
    """Most bytes allocated on the device so far; 0 where the framework does not tell."""
    runtime = getattr(ms, "runtime", None)
    if runtime is None or not hasattr(runtime, "max_memory_allocated"):
        return 0
    return int(runtime.max_memory_allocated())


def device_memory() -> int:
    """Bytes that the device has; 0 where the framework does not tell."""
    hal = getattr(ms, "hal", None)
    with contextlib.suppress(RuntimeError, ValueError, AttributeError):
        return int(hal.get_device_properties(0).total_memory)  # type: ignore[union-attr]
    return 0


def start_profiler(folder: Path) -> Any:
    """MindSpore's profiler, running; `stop()` and `analyse()` end it."""
    return ms.Profiler(output_path=str(folder), start_profile=True)


def export_onnx(cell: nn.Cell, image: Tensor, path: Path) -> None:
    """Writes `path`, which ends in .onnx; `export` for it is deprecated in 2.10."""
    stem = str(path.with_suffix(""))
    if hasattr(ms, "onnx"):
        ms.onnx.export(cell, image, file_name=stem)
    else:
        ms.export(cell, image, file_name=stem, file_format="ONNX")


def loads_mindir_of_any_batch() -> bool:
    """2.0 ends with a segmentation fault when it runs such a file of most networks."""
    return hasattr(ms, "set_device")


def version() -> str:
    """Of the framework."""
    return ms.__version__
