"""The device, its context and the environment of the process. No other module touches them."""

from __future__ import annotations

import os

from src.args import RunConfig
from src.errors import UserError


def setup_device(run: RunConfig, *, seed: int) -> None:
    """Selects device and execution mode and seeds the initialisation of weights.

    Raises:
        UserError: the device is not usable with the installed MindSpore.
    """
    # Read by MindSpore's logger at import, before which nothing of it has run: 3 shows errors only.
    os.environ.setdefault("GLOG_v", "3")
    if run.device_target == "CPU":
        # The convolutions in MindSpore's oneDNN fall back to reference kernels above AVX2, which
        # take a hundred times longer (docs/design.md).
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    import mindspore as ms

    from src.tools.compat import set_device

    try:
        set_device(run.device_target, run.device_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"device_target {run.device_target!r} with device_id {run.device_id}: not usable here "
            f"({reason}); on this machine try --device_target CPU"
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE if run.mode == "graph" else ms.PYNATIVE_MODE)
    ms.set_seed(seed)
