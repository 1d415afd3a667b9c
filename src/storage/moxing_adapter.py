"""Any URL as a local path: obs://, s3://, file:// and whatever fsspec knows.

Huawei's moxing is used for obs:// where it is really there (on ModelArts), else fsspec with s3fs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, Optional, Union

from ..errors import UserError
from ..runtime.regular_files import RECIPE_BYTES, read_regular
from ..runtime.threads import ThreadPool
from .remote_files import (
    NAME_BYTES,
    THREADS,
    Listing,
    Refused,
    RemoteFile,
    Storage,
    explained,
    is_http,
    part_of,
    retried,
)
from .staging_owner import StagingOwner

if TYPE_CHECKING:
    from .http_files import HttpFile

_LOGGER = logging.getLogger(__name__)

# Left free on the disk beside what is staged.
_SPARE_BYTES = 64 * 2**20
_OWNER = ".owner"
_STAGING_TIMEOUT_S = 6 * 3600.0


def real_moxing() -> Any:
    """Huawei's library, or None. PyPI has an unrelated one of that name, without `file`."""
    try:
        import moxing
    except Exception:  # that other one may fail in its own way
        return None
    file = getattr(moxing, "file", None)
    return moxing if hasattr(file, "copy_parallel") else None


def local_copy(url: str, cache: Path) -> Path:
    """Where a URL is staged to: the same path for the same URL."""
    name = url.rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..", _OWNER) or "\0" in name or len(os.fsencode(name)) > NAME_BYTES:
        name = "data"
    return cache / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12] / name


def stage(
    url: str,
    *,
    cache: Path,
    endpoint: Optional[str] = None,
    timeout_s: float = _STAGING_TIMEOUT_S,
) -> Path:
    """Local path of what `url` names.

    One process of a host copies, the others wait for it; when it dies, another goes on with what
    it has left. A second call copies only what has changed, and removes what is gone.

    Raises:
        UserError: nothing there, no rights, no connection, no room, or not within `timeout_s`.
    """
    if url.startswith("file://"):
        return Path(url[len("file://") :])
    target = local_copy(url, cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with StagingOwner(target.parent / _OWNER, timeout_s=timeout_s):
            moxing = real_moxing() if url.startswith("obs://") else None
            if moxing is not None:
                _copy_by_moxing(moxing, url, target)
            else:
                storage = open_storage(url, endpoint=endpoint)
                listing = storage.list()
                _remove_others(target, listing)
                fetch(storage, listing, target)
    except OSError as error:
        raise explained(url, error) from error
    return target


def open_storage(url: str, *, endpoint: Optional[str] = None) -> Union[Storage, HttpFile]:
    """What reads `url`. Raises UserError as of `Storage`."""
    return _open_http(url) if is_http(url) else Storage(url, endpoint=endpoint)


def _open_http(url: str) -> HttpFile:
    """What reads a file at http:// or https://."""
    # Imported here: every program imports this module, and few of them ask a server.
    from .http_files import HttpFile

    return HttpFile(url)


def read_small_file(
    url: str, *, endpoint: Optional[str] = None, most_bytes: int = RECIPE_BYTES
) -> bytes:
    """The content of a recipe.

    Raises:
        UserError: as of `stage`; more than `most_bytes`.
        OSError: of a file on this machine, as of `open_regular`.
    """
    if url.startswith("file://"):
        return read_regular(url[len("file://") :], most_bytes)
    if is_http(url):
        return _open_http(url).read(most_bytes)
    moxing = real_moxing() if url.startswith("obs://") else None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file"
        try:
            if moxing is not None:
                _copy_by_moxing(moxing, url, target)
            else:
                storage = Storage(url, endpoint=endpoint)
                listing = storage.list()
                if list(listing) != [""]:
                    raise UserError(f"{url}: a folder; give the URL of a file")
                if listing[""].size > most_bytes:
                    raise Refused(f"more than the {most_bytes:,} bytes allowed")
                storage.download("", listing[""], target)
            return read_regular(target, most_bytes)
        except (OSError, Refused) as error:
            raise explained(url, error) from error


def fetch(storage: Union[Storage, HttpFile], listing: Listing, target: Path) -> None:
    """Copies what of `listing` is not below `target` yet (or not of that version).

    Raises:
        UserError: no room, no connection, no rights.
    """
    missing = {n: f for n, f in listing.items() if not f.is_at(_place(target, n))}
    if not missing:
        _LOGGER.info("%s: all %d file(s) are in %s", storage.url, len(listing), target)
        return
    _check_room(storage.url, missing, target)
    # Imported here: every program imports this module, and few of them copy something.
    from tqdm import tqdm

    total, start = sum(file.size for file in missing.values()), time.monotonic()
    _LOGGER.info("%s: %d file(s), %.1f MB to %s", storage.url, len(missing), total / 1e6, target)
    stop, lock = threading.Event(), threading.Lock()
    # Where no terminal shows it, a line now and then will do.
    interval = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(total=total, unit="B", unit_scale=True, desc="copying", mininterval=interval) as bar:

        def progress(size: int) -> None:
            with lock:
                bar.update(size)

        def one(name: str) -> None:
            place = _place(target, name)
            storage.download(name, missing[name], place, progress=progress, is_over=stop.is_set)

        try:
            _in_threads(one, missing, stop)
        except Exception as error:
            raise explained(storage.url, error) from error
    _LOGGER.info("%s: copied in %.1f s", storage.url, time.monotonic() - start)


def _in_threads(work: Callable[[str], None], names: Iterable[str], stop: threading.Event) -> None:
    """`work` on each name; the first error stops all of them and is raised."""
    left, lock = iter(names), threading.Lock()
    errors: List[BaseException] = []

    def worker() -> None:
        while not stop.is_set():
            with lock:
                name = next(left, None)
            if name is None:
                return
            try:
                work(name)
            except BaseException as error:
                errors.append(error)
                stop.set()

    with ThreadPool(THREADS, "copy") as pool:
        jobs = [pool.submit(worker) for _ in range(THREADS)]
        try:
            wait(jobs)
        finally:
            stop.set()
    if errors:
        raise errors[0]


def _place(target: Path, name: str) -> Path:
    return target / name if name else target


def _check_room(url: str, missing: Listing, target: Path) -> None:
    parts = [part_of(_place(target, name), file) for name, file in missing.items()]
    have = sum(part.stat().st_size for part in parts if part.exists())
    need = sum(file.size for file in missing.values()) - have + _SPARE_BYTES
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise UserError(
            f"{url}: needs {need / 1e6:.0f} MB in {target.parent}, {free / 1e6:.0f} MB are free; "
            "make room or set cache_dir to a larger disk"
        )


def _remove_others(target: Path, listing: Listing) -> None:
    """What is gone from the storage must not be trained on. Hidden files are not the storage's."""
    if not target.is_dir():
        return
    wanted = {part_of(target / name, file) for name, file in listing.items()}
    for path in target.rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(target).parts)
        is_part = path.suffix == ".part" and path not in wanted
        name = path.relative_to(target).as_posix()
        if path.is_file() and (is_part or not (is_hidden or name in listing)):
            path.unlink()


def _copy_by_moxing(moxing: Any, url: str, target: Path) -> None:
    """A folder once (moxing tells no versions of many files cheaply), a file each time."""
    file = moxing.file
    if not file.exists(url):
        raise FileNotFoundError(url)
    is_folder = file.is_directory(url)
    if is_folder and target.is_dir():
        return
    size = file.get_size(url, recursive=is_folder)
    _check_room(url, {"": RemoteFile(size, None)}, target)
    part = part_of(target, RemoteFile(size, None))
    retried(url, lambda: (file.copy_parallel if is_folder else file.copy)(url, str(part)))
    paths = part.rglob("*") if is_folder else [part]
    have = sum(path.stat().st_size for path in paths if path.is_file())
    if have != size:
        raise OSError(f"{url}: {have} bytes arrived of {size}")
    os.replace(part, target)


def upload_by_moxing(moxing: Any, source: Path, url: str) -> RemoteFile:
    """One file, whose size is checked."""

    def put() -> RemoteFile:
        size = source.stat().st_size
        moxing.file.copy(str(source), url)
        found = moxing.file.get_size(url)
        if not size <= found <= max(size, source.stat().st_size):
            raise OSError(f"{url}: {found} bytes arrived of {size}")
        return RemoteFile(found, None)

    return retried(url, put)
