"""What differs between MindSpore 2.0 and 2.10. No other module asks for the version."""

from __future__ import annotations

import mindspore as ms


def set_device(device_target: str, device_id: int) -> None:
    """Selects the device; `set_context` for it is deprecated from 2.5 on."""
    if hasattr(ms, "set_device"):
        ms.set_device(device_target, device_id)
    else:
        ms.set_context(device_target=device_target, device_id=device_id)


def has_cpu_kernels() -> bool:
    """Whether the fast forms of `src/kernels` are tried with this version; others run without."""
    return hasattr(ms, "set_device")
