"""How much memory this process may take, and one line where that was not enough."""

from __future__ import annotations

import contextlib
import errno
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, List, NamedTuple, Optional

from ..errors import TrainingFailed, UserError

if TYPE_CHECKING:
    from ..args import Config

# What MindSpore 2.0 and 2.10 on each device, CANN, CUDA's libraries and onnxruntime say of it.
_SAID = re.compile(
    r"memory isn't enough|memory not enough|out of memory|bad_alloc|\bEL0004\b|ALLOC_FAILED|"
    r"cannot allocate memory|failed to allocate memory|memory malloc failed",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:alloc size: ?|request memory size: ?|required size\[|device memory\[|alloc size\[|"
    r"memory failed, size: ?|requested bytes: ?|buffer of size )(\d+)",
    re.IGNORECASE,
)
# A thread needs room for its stack; under other limits of their number there is none either.
_NO_THREAD = re.compile(
    r"^(resource temporarily unavailable|can't start new thread)", re.IGNORECASE
)
# NumPy's own: "Unable to allocate 7.28 TiB for an array with shape ...".
_ASKED_IN_UNITS = re.compile(r"Unable to allocate ([\d.]+ [KMGTPE]?i?B)")
# A limit of cgroup version 1 that is none: the largest number of whole pages.
_NO_LIMIT = 2**60


class Allowance(NamedTuple):
    """Most bytes that a process may take, and what says so: `this machine has`."""

    num_bytes: int
    said_by: str


def host_allowance(root: Path = Path("/")) -> Optional[Allowance]:
    """The smallest of the machine's memory, the container's limit and `ulimit -v`.

    None where the system tells nothing.

    Args:
        root: of the file system that /proc and /sys are in.
    """
    found = list(_container_limits(root))
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (root / "proc" / "meminfo").read_text().splitlines()
        total = [line.split()[1] for line in lines if line.startswith("MemTotal:")][0:1]
        found += [Allowance(int(kib) * 1024, "this machine has") for kib in total]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(Allowance(limit, "ulimit -v allows"))
    return min(found, default=None)


def check_room(num_bytes: int, what: str, remedy: str) -> None:
    """Refuses what cannot fit, before any of it is there.

    Args:
        num_bytes: that surely are needed.
        what: takes them, plural, naming keys and values.
        remedy: what takes less, as an advice.

    Raises:
        UserError: more than this process may take.
    """
    allowed = host_allowance()
    if allowed is not None and num_bytes > allowed.num_bytes:
        raise UserError(
            f"memory: {what} take {_in_gib(num_bytes)}; {allowed.said_by} "
            f"{_in_gib(allowed.num_bytes)}; {remedy}"
        )


def _container_limits(root: Path) -> Iterator[Allowance]:
    """Those of this process's control group and of the groups around it, versions 1 and 2."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            base, name = root / "sys/fs/cgroup", "memory.max"
            if controllers:
                base, name = base / "memory", "memory.limit_in_bytes"
            if controllers and "memory" not in controllers.split(","):
                continue
            inside = Path(group.lstrip("/"))
            for folder in (base / inside, *(base / parent for parent in inside.parents)):
                with contextlib.suppress(OSError, ValueError):  # "max" is no number
                    limit = int((folder / name).read_text())
                    if limit < _NO_LIMIT:
                        yield Allowance(limit, f"the container may use ({name})")


def host_peak() -> int:
    """Most bytes of memory that this process has held so far."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text().splitlines()
        # Not `getrusage`, which counts what the parent held before the program was started.
        return int([line.split()[1] for line in lines if line.startswith("VmHWM:")][-1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def lack_explained(config: Optional[Config] = None) -> Iterator[None]:
    """A lack of memory within becomes a UserError, see `explain_lack`."""
    try:
        yield
    except Exception as error:
        said = explain_lack(error, config)
        if said is None:
            raise
        raise UserError(said) from error


def explain_lack(error: BaseException, config: Optional[Config] = None) -> Optional[str]:
    """One line when `error`, or what it came from, is a lack of memory; else None.

    What was asked for, what there is, and which keys help.

    Args:
        config: of the program; without, there are no keys to name.
    """
    if isinstance(error, RuntimeError) and _NO_THREAD.match(str(error)):
        return (
            "threads: no more could be started; raise `ulimit -v`, `ulimit -u` or the container's "
            "pids.max, or give --num_parallel_workers 1"
        )
    cause = _lack_behind(error)
    if cause is None:
        return None
    device = "CPU" if config is None else config.run.device_target
    if device == "CPU" or isinstance(cause, (MemoryError, OSError)):
        allowed = host_allowance()
        has = f"; {allowed.said_by} {_in_gib(allowed.num_bytes)}" if allowed else ""
        there = f"this process has held {_in_gib(host_peak())}{has}"
        whose = "memory"
    else:
        there, whose = _device_has(), f"memory of {device} {config.run.device_id if config else 0}"
    said = f"{whose}: {_asked_for(str(cause))} could not be had" + (f" ({there})" if there else "")
    return f"{said}; {remedies(config)}"


def _lack_behind(error: Optional[BaseException]) -> Optional[BaseException]:
    # An error that was raised from itself has no end.
    seen: List[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        is_ours = isinstance(error, (UserError, TrainingFailed))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return error
        # onnxruntime's errors are Exceptions and no more.
        if not is_ours and not isinstance(error, OSError) and _SAID.search(str(error)):
            return error
        error = error.__cause__
    return None


def _asked_for(text: str) -> str:
    sizes = [int(size) for size in _ASKED.findall(text)]
    if sizes:
        return f"{max(sizes) / 2**20:,.1f} MiB more"
    in_units = _ASKED_IN_UNITS.search(text)
    return f"{in_units[1]} more" if in_units else "more"


def _in_gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _device_has() -> str:
    from .compat import device_memory, max_device_memory

    held, total = max_device_memory(), device_memory()
    said = [f"this process has held {_in_gib(held)}"] if held else []
    return "; ".join([*said, *([f"the device has {_in_gib(total)}"] if total else [])])


def remedies(config: Optional[Config]) -> str:
    """`give --batch_size 8 ..., or --amp_level O0 ...`: what makes less of the same."""
    if config is None:
        return "close other programs, or use a machine with more"
    from ..args import Config

    # Programs that do not train have types of their own.
    trains = type(config) is Config
    cures = _smaller_batch(config) if trains else _smaller_input(config)
    level, on_cpu = config.train.amp_level, config.run.device_target == "CPU"
    if on_cpu and level not in ("O0", "auto"):
        cures.append(f"--amp_level O0 ({level} takes more on a CPU)")
    if trains and not on_cpu and level == "O0":
        cures.append("--amp_level O2")
    can_recompute = config.train.seeded_dropout and config.run.mode == "graph"
    if trains and can_recompute and not config.train.recompute:
        cures.append("--recompute true")
    if trains and config.model.image_size:
        cures.append(f"a smaller --image_size (now {config.model.image_size})")
    return (
        f"give {', or '.join(cures)}" if cures else "close other programs, or use another machine"
    )


def _smaller_batch(config: Config) -> List[str]:
    batch, steps = config.data.batch_size, config.train.accumulation_step
    if batch < 2:
        return []
    if batch % 4:  # half of it may be odd, which mixing does not take
        return [f"a smaller --batch_size (now {batch})"]
    half = f"--batch_size {batch // 2} --accumulation_step {2 * steps}"
    return [f"{half} (now {batch} and {steps}: as many images a step)"]


def _smaller_input(config: Config) -> List[str]:
    batch = config.serving_batch() if hasattr(config, "serving") else config.data.batch_size
    return [f"--batch_size {batch // 2} (now {batch})"] if batch > 1 else []
