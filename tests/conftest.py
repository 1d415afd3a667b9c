"""What must hold before any test module is imported: the device, and an importable torchvision."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, List

os.environ.setdefault("GLOG_v", "3")  # read when MindSpore is imported

import hypothesis
import pytest

from src.args import RunConfig
from src.kernels import selection
from src.runtime.device import setup_device


def declare_torchvision_operators() -> Any:
    """Makes torchvision importable beside a CPU build of torch; returns what must stay alive.

    torchvision registers fake kernels for operators whose compiled library does not load there;
    its import succeeds once their schemas exist.
    """
    try:
        import torch
    except ImportError:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        # The schemas exist already where the compiled library does load.
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


setup_device(RunConfig(), seed=1)
# The same examples each time, without a clock.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    max_examples=500 if os.environ.get("FULL") == "1" else 40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")
_TORCHVISION_OPERATORS = declare_torchvision_operators()


# Files of a minute and more first: whichever worker is done first takes the next one, and what is
# left for the end is short.
LONG = (
    *("engine", "inference_chain", "kernel_forms", "distributed", "stalled_disk", "aarch64"),
    *("models", "train_step", "export", "amp", "weights_origin", "kernel_sanitizers", "signals"),
    *("saturation", "ascend_graphs", "bundle_cpp", "gpu_backend", "url_runs", "kernels", "package"),
)


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def pynative() -> Iterator[None]:
    """No compilation, where the graph is not what is tested. It runs on the standard cells."""
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with selection.using(selection.OFF):
        yield
    ms.set_context(mode=before)


@pytest.fixture(params=["graph", "graph, standard form", "pynative"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Execution modes, with the fastest form of the cells where there is a choice."""
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE if request.param == "pynative" else ms.GRAPH_MODE)
    is_standard = request.param != "graph"
    with selection.using(selection.OFF) if is_standard else contextlib.nullcontext():
        yield request.param
    ms.set_context(mode=before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def little_time_and_memory() -> Iterator[None]:
    """The test takes less than 10 s of the processor, and 700 MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, start = _memory("VmRSS"), time.process_time()
    yield
    assert time.process_time() - start < 10
    assert _memory("VmHWM") - before < 700 * 2**20


def _memory(name: str) -> int:
    """VmRSS or VmHWM, bytes."""
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) * 1024
