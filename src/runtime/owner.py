"""A file by which one process at a time owns a folder, known to other processes and other hosts.

`flock` would end with its process by itself, but network and FUSE mounts do without it, or keep it
on the host. A file is seen everywhere: who has created it owns the folder, and rewrites it as a
sign of life. On the same host the owner's process itself says whether it lives.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from .json_files import read_typed
from .regular_files import RECORD_BYTES, UNLIMITED, open_regular
from .threads import join

# An owner on another host that has given no sign of life for so long is dead.
OWNER_S = 60.0


@dataclass(frozen=True)
class Owner:
    """Who holds a file, for people and for other processes.

    Attributes:
        started: ticks from the boot to the start of the process: a number used again is another's.
        place: what numbers the processes: containers of a host do so each for itself.
        job: of a scheduler; empty: none.
        since: local date and time.
        token: another for every `OwnerFile`.
    """

    user: str
    host: str
    pid: int
    started: int
    place: str
    job: str
    since: str
    token: str

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.pid} of {self.user} on {self.host}{job}, since {self.since}"

    def is_here(self) -> bool:
        """Whether this process can see whether that one lives."""
        return self.started > 0 and self.place == _place()

    def is_running(self) -> bool:
        """Of an owner that `is_here`."""
        return _start_of(self.pid) == self.started


def _this_process(job: str) -> Owner:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, in a container
        user = f"user {os.getuid()}"
    return Owner(
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        place=_place(),
        job=job,
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        token=uuid.uuid4().hex,
    )


def _start_of(pid: int) -> int:
    """-1: no such process, one that has ended and is not waited for yet, or no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return -1
    # The name in the second field may hold anything.
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _place() -> str:
    boot, namespace = socket.gethostname(), ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{boot} {namespace}"


class OwnerFile:
    """Says which process owns the folder of `path`; the owner's sign of life is its time.

    Args:
        owner_s: how long a sign of life counts.
        job: of a scheduler, to be shown.
    """

    def __init__(self, path: Path, *, owner_s: float = OWNER_S, job: str = "") -> None:
        self.path = path
        self._owner_s = owner_s
        self._me = _this_process(job)
        self._is_over = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def take(self, *, by_force: bool = False) -> bool:
        """Makes this process the owner, unless another one lives.

        Args:
            by_force: even then; it finds out by `confirm`.

        Raises:
            OSError: the folder cannot be written.
        """
        self._remove_dead(by_force=by_force)
        if not self._create():
            return False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Ends what `take` began; the file of whoever has taken over stays."""
        self._is_over.set()
        if self._thread is not None:
            join([self._thread])
            if self._thread.is_alive():
                return  # the file's disk is stalled: this would wait too
        with contextlib.suppress(OSError):
            if self.owner() == self._me:
                self.path.unlink()

    def owner(self) -> Optional[Owner]:
        """Who has the file; None: nobody, or it cannot be read (not written yet, no rights)."""
        return _read(self.path)

    def sign_of_life(self) -> float:
        """When the owner gave the last one, by the clock of the file system; 0: no owner."""
        # Opened, because a network disk asks its server only then.
        try:
            with open_regular(self.path, UNLIMITED) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return 0.0

    def confirm(self) -> bool:
        """Whether this process is the owner still; a file that somebody deleted comes again."""
        return self.owner() == self._me or self._create()

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._content())
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        # Where creation is not exclusive (some FUSE mounts) another process may have been later.
        return self.owner() == self._me

    def _content(self) -> bytes:
        return json.dumps(asdict(self._me), indent=2).encode() + b"\n"

    def _keep(self) -> None:
        # Whoever took over from a process that had been stopped for long keeps it.
        while not self._is_over.wait(self._owner_s / 4):
            with contextlib.suppress(OSError):
                if self.confirm():
                    with self.path.open("r+b") as file:
                        file.write(self._content())

    def _remove_dead(self, *, by_force: bool) -> None:
        if not self.path.exists() or not (by_force or self._is_dead(self.path)):
            return
        # Another process may have taken over since it was read, so one at a time looks again.
        turn = self.path.with_name(f".{self.path.stem}.turn.tmp")
        try:
            turn.touch(exist_ok=False)  # exclusive
        except FileExistsError:
            if self._is_dead(turn):  # of a process that was killed within these lines
                turn.unlink(missing_ok=True)
            return
        try:
            if by_force or self._is_dead(self.path):
                self.path.unlink(missing_ok=True)
        finally:
            turn.unlink(missing_ok=True)

    def _is_dead(self, path: Path) -> bool:
        owner = _read(path)
        if owner is not None and owner.is_here():
            return not owner.is_running()
        # Both times are the file system's: clocks of hosts differ.
        probe = self._beside()
        probe.touch()
        try:
            return probe.stat().st_mtime - path.stat().st_mtime > self._owner_s
        except FileNotFoundError:
            return False
        finally:
            probe.unlink()

    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.stem}.{uuid.uuid4().hex[:8]}.tmp")


def _read(path: Path) -> Optional[Owner]:
    try:
        return read_typed(path, RECORD_BYTES, Owner)
    except (OSError, ValueError):
        return None
