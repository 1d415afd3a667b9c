"""The device, its context and the environment of the process. No other module touches them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional

from ..args import RunConfig
from ..errors import UserError, on_one_line
from ..kernels import build, selection
from .caches import use_cache_folders
from .log import FrameworkLog, log_problems_only
from .memory import host_allowance, host_peak
from .npu_smi import FIRST_910, generation, list_cards
from .ranks import RankEnvironment, World, read_rank_environment
from .stop_signal import ignore_signals

_LOGGER = logging.getLogger(__name__)


def setup_device(run: RunConfig, *, seed: int, has_run_log: bool = False) -> World:
    """Selects device, execution mode and kernels, seeds the weights, joins the other processes.

    With several processes the device is the launcher's, not `device_id`; the call returns when all
    of them are there. In a scheduler of MindSpore's cluster it does not return.

    Args:
        has_run_log: MindSpore's warnings are for `log_to_file`; without they are dropped.

    Raises:
        UserError: the device or a key is not usable with the installed MindSpore, the processes do
            not find each other, or `cpu_kernels` native cannot be compiled.
    """
    environment = read_rank_environment(os.environ)
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        ignore_signals()  # the ranks save, and need it meanwhile
    device_id = _device_id(run, environment)
    prepare_import(run, has_run_log=has_run_log)
    import mindspore as ms

    from .compat import set_device, show_only_errors

    if any(isinstance(handler, FrameworkLog) for handler in logging.getLogger().handlers):
        show_only_errors()
    try:
        set_device(run.device_target, device_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"device_target {run.device_target!r} with device_id {device_id}: not usable here "
            f"({reason}); python scripts/doctor.py --device_target {run.device_target} names what "
            "is missing, --device_target CPU does without"
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE if run.mode == "graph" else ms.PYNATIVE_MODE)
    _select_jit_level(run)
    world = _join(environment.size) if environment else World()
    if not world.is_main:
        log_problems_only()
    ms.set_seed(seed)
    select_kernels(run)
    return world


def _device_id(run: RunConfig, environment: Optional[RankEnvironment]) -> int:
    # A CPU has one device, however many processes share it.
    if run.device_target == "CPU" or environment is None or environment.device_id is None:
        return run.device_id
    return environment.device_id


def prepare_import(run: RunConfig, *, has_run_log: bool = False) -> None:
    """Sets what MindSpore and its libraries read when they are imported, unless the user did.

    `setup_device` does it too; a program that imports MindSpore before calls it first.
    """
    use_cache_folders()
    if "GLOG_v" not in os.environ:
        _direct_framework_log(read_rank_environment(os.environ), has_run_log=has_run_log)
    if run.device_target == "CPU":
        # The convolutions in MindSpore's oneDNN fall back to reference kernels above AVX2, which
        # take a hundred times longer (docs/design.md).
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
        # Threads of the native kernels sleep between calls instead of spinning: MindSpore's own
        # need the cores meanwhile.
        os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _direct_framework_log(environment: Optional[RankEnvironment], *, has_run_log: bool) -> None:
    """MindSpore's errors go to the screen, its warnings to a file that is kept, if there is one.

    Ranks but the first write to a file already: what their launcher made of their screen.
    """
    is_first = environment is None or environment.rank == 0
    has_file = has_run_log and not is_first
    if has_run_log and is_first:
        # Without a folder for temporary files the run goes on, without warnings.
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="mindspore_log_")
            os.environ.update(GLOG_logtostderr="0", GLOG_log_dir=folder, GLOG_stderrthreshold="3")
            logging.getLogger().addHandler(FrameworkLog(Path(folder)))
            has_file = True
    os.environ.update(GLOG_v="2" if has_file else "3")  # warnings, errors


def _select_jit_level(run: RunConfig) -> None:
    from .compat import has_jit_levels, set_jit_level, version

    if run.jit_level is not None:
        if run.mode != "graph":
            raise UserError(
                f"jit_level {run.jit_level!r}: says how graphs are compiled, and mode {run.mode!r} "
                "compiles none; leave one of the keys out"
            )
        if not has_jit_levels():
            raise UserError(
                f"jit_level {run.jit_level!r}: MindSpore {version()} has no such levels, 2.3 and "
                "newer have; leave the key out"
            )
        set_jit_level(run.jit_level)
    by_table = "RANK_TABLE_FILE" in os.environ and "MS_ROLE" not in os.environ
    if run.device_target == "Ascend" and by_table and has_jit_levels():
        _LOGGER.warning(
            "RANK_TABLE_FILE is set, so MindSpore %s compiles whole graphs by GE (jit_level O2); "
            "scripts/launch.py --launcher rank_table starts the same ranks without",
            version(),
        )


def _join(size: int) -> World:
    from mindspore import communication

    try:
        communication.init()
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"the {size} processes did not find each other ({on_one_line(error)}); see the logs of "
            "the other ranks, and docs/distributed.md"
        ) from error
    return World(communication.get_rank(), communication.get_group_size())


def select_kernels(run: RunConfig) -> None:
    """Sets the form that hot cells take from now on; says so when `auto` cannot be the fastest.

    Raises:
        UserError: `cpu_kernels` native, and they cannot be compiled.
    """
    from .compat import has_cpu_kernels

    # PyNative infers a custom operator's shapes once for all that share a kernel and input shapes,
    # whatever their attributes: wrong for kernels of different sizes.
    is_graph = run.mode == "graph"
    is_usable = run.device_target == "CPU" and is_graph and has_cpu_kernels()
    if not is_usable or run.cpu_kernels == "off":
        selection.select(selection.OFF)
    elif run.cpu_kernels == "pure":
        selection.select(selection.PURE)
    else:
        _select_native(is_required=run.cpu_kernels == "native")


def _select_native(*, is_required: bool) -> None:
    try:
        selection.select(selection.NATIVE, build.KERNELS.path())
    except UserError as error:
        if is_required:
            raise UserError(
                f"cpu_kernels 'native': {error}; install one, or use cpu_kernels: auto"
            ) from error
        _LOGGER.info("cpu_kernels auto: %s; slower without", error)
        selection.select(selection.PURE)


def process_environment() -> Dict[str, str]:
    """The variables of this process, to look at."""
    return dict(os.environ)


def describe_device(run: RunConfig, *, network_has_kernels: bool = True) -> str:
    """`CPU (2 cores, 23.4 GiB, kernels native)` or `Ascend 0`.

    Args:
        network_has_kernels: half precision computes without; the optimizer has them all the same.
    """
    if run.device_target != "CPU":
        return f"{run.device_target} {run.device_id}"
    kernels, allowed = selection.selected(), host_allowance()
    if kernels == selection.NATIVE and not network_has_kernels:
        kernels = "native in the optimizer only"
    elif not network_has_kernels:
        kernels = selection.OFF
    # Those this process may use: a launcher gives each of its ranks some.
    cores = len(os.sched_getaffinity(0))
    memory = f"{allowed.num_bytes / 2**30:.1f} GiB, " if allowed else ""
    return f"CPU ({cores} cores, {memory}kernels {kernels})"


@functools.cache
def _is_first_910() -> bool:
    """Whether the Ascend in use is of the first generation, as MindSpore or else npu-smi tells."""
    from .compat import ascend_soc, is_for_first_ascend_only

    soc = ascend_soc()
    if soc:
        return soc == "ascend910"
    cards = list_cards()
    if cards:
        return generation(cards[0].name) == FIRST_910
    return is_for_first_ascend_only()


def saturates(run: RunConfig) -> bool:
    """Whether the device computes the largest number for an infinity, and 0 for NaN."""
    if run.device_target != "Ascend":
        return False
    from .compat import is_for_first_ascend_only

    # MindSpore 2.0 reads the status of every Ascend, later versions of these.
    is_chosen = os.environ.get("MS_ASCEND_CHECK_OVERFLOW_MODE") == "SATURATION_MODE"
    return is_for_first_ascend_only() or _is_first_910() or is_chosen


def has_float32_convolutions(run: RunConfig) -> bool:
    """Ascend 910A computes them in float16, whatever the type of their tensors."""
    return run.device_target != "Ascend" or not _is_first_910()


def why_no_bfloat16(run: RunConfig) -> str:
    """What the device or the version lacks for it; empty when it can be used."""
    from .compat import has_bfloat16, version

    if not has_bfloat16():
        return f"MindSpore {version()} does not have it"
    if run.device_target != "Ascend":
        return f"MindSpore has no convolutions and norms for it on {run.device_target}"
    return "Ascend 910A does not have it" if _is_first_910() else ""


def peak_memory_gib(run: RunConfig) -> float:
    """Most memory used so far: of the process on a CPU, else of the device; GiB."""
    if run.device_target == "CPU":
        return host_peak() / 2**30
    from .compat import max_device_memory

    return max_device_memory() / 2**30


class _Trace:
    """Records the framework's own profile while entered, where it works.

    Attributes:
        verdict: `written`, or why there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.verdict = "not started"
        self._folder = folder
        self._profiler: Any = None

    def __enter__(self) -> _Trace:
        from .compat import start_profiler

        try:
            self._profiler = start_profiler(self._folder)
        except (RuntimeError, ValueError, TypeError, ImportError, OSError) as error:
            self.verdict = f"does not work here ({on_one_line(error, 120)})"
        return self

    def __exit__(self, *_: object) -> None:
        if self._profiler is None:
            return
        try:
            self._profiler.stop()
            self._profiler.analyse()
            self.verdict = "written"
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            self.verdict = f"does not work here ({on_one_line(error, 120)})"


def trace_steps(folder: Path) -> _Trace:
    """The framework's profile of what runs within `with`, into `folder`."""
    return _Trace(folder)
