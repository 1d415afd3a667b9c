"""The files at a URL (s3://, obs://, and whatever fsspec knows): listed, read and written.

What may pass, such as a time-out or an error of the server, is tried again with longer and longer
pauses; anything else becomes one line that says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, NamedTuple, Optional, TypeVar

from ..errors import UserError, on_one_line

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK = 16 * 2**20
# Copies at a time.
THREADS = 16
_TRIES = 6
# The pauses between the tries double: half a minute in all.
_FIRST_PAUSE_S = 1.0
# Of one connection, and of silence on it.
_CONNECT_S, _READ_S = 10, 60
_S3_SCHEMES = ("obs", "s3")
HTTP_SCHEMES = ("http", "https")
# Of what a file is called here; a growing copy's name has some more.
NAME_BYTES = 220
_OBS_HOST = re.compile(r"https?://obs\.([a-z0-9-]+)\.myhuaweicloud\.com")


class RemoteFile(NamedTuple):
    """Size in bytes, and when it was written (seconds since 1970; None: the storage does not say).

    A local copy carries the same time, so that it is known to be of this version.
    """

    size: int
    modified: Optional[float]

    def is_at(self, path: Path) -> bool:
        """Whether the local file is a whole copy of this one."""
        if not path.is_file():
            return False
        state = path.stat()
        if self.modified is None or state.st_size != self.size:
            return state.st_size == self.size
        # Some file systems keep whole or even seconds only, and round down. A storage's own whole
        # seconds are compared as they are: the next one may be another file.
        seconds = state.st_mtime
        tick = 2.0 if seconds % 2 == 0 else 1.0 if seconds % 1 == 0 else 1e-3
        return -1e-3 < self.modified - seconds < (tick if self.modified % 1 else 1e-3)


# Path below the root -> file; of a URL that is a file, that one under the name ''.
Listing = Dict[str, RemoteFile]


class Refused(Exception):
    """What does not pass by itself; the message says what is wrong with a URL, and the remedy."""


def is_url(path: Optional[str]) -> bool:
    """`scheme://...`, other than a path."""
    return path is not None and "://" in path


def is_http(url: str) -> bool:
    """Whether `http_files` reads it."""
    return url.partition("://")[0].lower() in HTTP_SCHEMES


def retried(what: str, work: Callable[[], T]) -> T:
    """`work()` again after what may pass: timeouts, broken connections, errors of the server."""
    pause = _FIRST_PAUSE_S
    for left in range(_TRIES - 1, -1, -1):
        try:
            return work()
        except Exception as error:
            if left == 0 or not _may_pass(error):
                raise
            _LOGGER.info("%s: %s; again in %.1f s", what, reason(error), pause)
            time.sleep(pause)
            pause *= 2
    raise AssertionError


# Part of an error's text -> what the user can do. These do not pass by themselves.
_CURES = {
    "NoSuchBucket": "the bucket does not exist; check its name, and obs_endpoint for the region",
    "specified bucket does not exist": (
        "the bucket does not exist; check its name, and obs_endpoint for the region"
    ),
    "FileNotFound": "nothing is there; check the name, and obs_endpoint for the region",
    "No space left": "the local disk is full; make room or set cache_dir to a larger one",
    "NoCredentials": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PermissionError": (
        "refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the rights"
    ),
}
_CONNECTION = "check obs_endpoint and the network; what has arrived is kept: run it again"
_HTTP_CONNECTION = "check the name and the network; what has arrived is kept: run it again"


def _may_pass(error: BaseException) -> bool:
    is_final = isinstance(error, (Refused, UserError))
    return not is_final and not any(part in reason(error) for part in _CURES)


def reason(error: BaseException) -> str:
    """An error on one line of up to 200 characters."""
    return on_one_line(f"{type(error).__name__}: {error}")


def explained(url: str, error: BaseException) -> UserError:
    """What is wrong with `url`, and what the user can do."""
    if isinstance(error, Refused):
        return UserError(f"{url}: {error}")
    text = reason(error)
    otherwise = _HTTP_CONNECTION if is_http(url) else _CONNECTION
    cure = next((cure for part, cure in _CURES.items() if part in text), otherwise)
    return UserError(f"{url}: {cure} ({text})")


class Storage:
    """The files below one URL, by fsspec.

    Args:
        endpoint: of obs:// and s3://, such as https://obs.cn-north-4.myhuaweicloud.com; None: the
            environment's (AWS_ENDPOINT_URL).

    Raises:
        UserError: no library for the scheme.
    """

    def __init__(self, url: str, *, endpoint: Optional[str] = None) -> None:
        self.url = url.rstrip("/")
        self._put_options: Dict[str, Any] = {}
        scheme, _, rest = self.url.partition("://")
        try:
            import fsspec

            if scheme in _S3_SCHEMES:
                self.fs = fsspec.filesystem("s3", **s3_options(endpoint))
                self.fs.retries = 1  # `retried` does it
                # While a part is sent the connection is silent, and may be for _READ_S only: more
                # or larger ones at a time would not make it on a slow line.
                self._put_options = {"chunksize": _CHUNK, "max_concurrency": 4}
                self.root = rest
            else:
                self.fs, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{url}: needs a package that is not installed ({error}); "
                "pip install -r requirements-obs.txt"
            ) from error
        except OSError as error:  # schemes that connect at once
            raise explained(url, error) from error

    def list(self) -> Listing:
        """All files below the URL.

        Raises:
            UserError: nothing is there, no rights, no connection, a name that leads elsewhere.
        """
        try:
            found = retried(self.url, self._find)
        except Exception as error:
            raise explained(self.url, error) from error
        _check_names(self.url, found)
        return found

    def _find(self) -> Listing:
        self.fs.invalidate_cache()
        found = self.fs.find(self.root, detail=True)
        if not found:
            self.fs.info(self.root)
        root = self.fs._strip_protocol(self.root).rstrip("/")
        return {
            _below(root, path): RemoteFile(_size(path, info), _modified(info))
            for path, info in found.items()
            # What consoles create to show an empty folder.
            if not path.endswith("/")
        }

    def download(
        self,
        name: str,
        file: RemoteFile,
        target: Path,
        *,
        progress: Callable[[int], None] = lambda size: None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """One file, continued where an earlier try stopped, renamed when it is whole.

        Args:
            progress: told how many bytes are there, of an earlier try too.
            is_over: asked between parts whether to stop.
        """
        remote = self._remote(name)
        with growing(target, file) as part, part.open("ab") as stream:
            have = stream.tell()
            progress(have)
            for start in range(have, file.size, _CHUNK):
                if is_over():
                    return
                data = self._read(remote, start, min(start + _CHUNK, file.size))
                stream.write(data)
                stream.flush()
                progress(len(data))

    def _read(self, remote: str, start: int, end: int) -> bytes:
        def read() -> bytes:
            data = self._read_part(remote, start, end)
            if len(data) != end - start:
                raise OSError(f"{remote}: {len(data)} bytes where {end - start} are due")
            return data

        return retried(remote, read)

    def _read_part(self, remote: str, start: int, end: int) -> bytes:
        if self.url.partition("://")[0] not in _S3_SCHEMES:
            return bytes(self.fs.cat_file(remote, start=start, end=end))
        # s3fs reads whatever comes, all of it.
        from fsspec.asyn import sync

        return bytes(sync(self.fs.loop, _get_s3_part, self.fs, remote, start, end))

    def upload(self, source: Path, name: str) -> RemoteFile:
        """One file; the object appears when it is whole, and its size is checked."""
        remote = self._remote(name)

        def put() -> RemoteFile:
            least = source.stat().st_size
            self.fs.makedirs(self.fs._parent(remote), exist_ok=True)
            self.fs.put_file(str(source), remote, **self._put_options)
            self.fs.invalidate_cache()
            info = self.fs.info(remote)
            # A log may have grown meanwhile.
            if not least <= int(info["size"]) <= max(least, source.stat().st_size):
                raise OSError(f"{remote}: {info['size']} bytes arrived of {least}")
            return RemoteFile(int(info["size"]), _modified(info))

        return retried(remote, put)

    def time_of(self, name: str) -> Optional[float]:
        """When the file was written; None: it is not there, or the storage does not say."""
        self.fs.invalidate_cache()
        try:
            return _modified(retried(self.url, lambda: self.fs.info(self._remote(name))))
        except FileNotFoundError:
            return None

    def is_missing_folder(self, error: Optional[BaseException]) -> bool:
        """Whether `list` failed only because nothing is at the URL, in a bucket that is there."""
        if not isinstance(error, FileNotFoundError):
            return False
        bucket = self.root.partition("/")[0]
        is_s3 = self.url.partition("://")[0] in _S3_SCHEMES
        return not is_s3 or bool(retried(bucket, lambda: self.fs.exists(bucket)))

    def _remote(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


def _below(root: str, path: str) -> str:
    if path != root and not path.startswith(f"{root}/"):
        raise Refused(f"lists {on_one_line(repr(path))}, which is not below it; rename it")
    return path[len(root) + 1 :]


def _size(path: str, info: Dict[str, Any]) -> int:
    size = info.get("size")
    if type(size) is not int or size < 0:
        raise Refused(f"does not say how large {on_one_line(repr(path))} is; copy it by hand")
    return size


def _check_names(url: str, names: Iterable[str]) -> None:
    """Each must be a file of its own below the local folder."""
    taken = set(names)
    for name in taken - {""}:
        parts = name.split("/")
        shown = f"{url}/{on_one_line(repr(name)[1:-1])}"
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name:
            raise UserError(f"{shown}: '..', '.', NUL or nothing for a name; rename it")
        if max(len(part.encode("utf-8", "surrogatepass")) for part in parts) > NAME_BYTES:
            raise UserError(f"{shown}: a name of more than {NAME_BYTES} bytes; rename it")
        if parts[-1].startswith(".") and parts[-1].endswith(".part"):
            raise UserError(f"{shown}: called as unfinished copies are; rename it")
        if not taken.isdisjoint("/".join(parts[:end]) for end in range(1, len(parts))):
            raise UserError(f"{shown}: below a name that is a file too; rename one of them")


def _modified(info: Dict[str, Any]) -> Optional[float]:
    for key in ("LastModified", "mtime", "created"):
        if isinstance(info.get(key), datetime):
            return float(info[key].timestamp())
        if isinstance(info.get(key), (int, float)):
            return float(info[key])
    return None


async def _get_s3_part(fs: Any, remote: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of an object; of a longer answer nothing is read."""
    bucket, key, _ = fs.split_path(remote)
    part = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{end - 1}"}
    answer = await fs._call_s3("get_object", **part)
    body = answer["Body"]
    try:
        announced = answer.get("ContentLength")
        if announced is None or announced > end - start:
            raise Refused(f"the server sends {announced} bytes of {remote} for {end - start}")
        return bytes(await body.read())
    finally:
        body.close()


def part_of(target: Path, file: RemoteFile) -> Path:
    """Where a copy grows; another version of the file never continues it."""
    version = "0" if file.modified is None else format(int(file.modified * 1000), "x")
    return target.with_name(f".{target.name}.{version}.part")


@contextlib.contextmanager
def growing(target: Path, file: RemoteFile) -> Iterator[Path]:
    """The copy that grows, with what an earlier try has left; renamed at the end if it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target, file)
    part.touch()
    if part.stat().st_size > file.size:
        os.truncate(part, 0)
    yield part
    if part.stat().st_size == file.size:
        if file.modified is not None:
            os.utime(part, (file.modified, file.modified))
        os.replace(part, target)


def s3_options(endpoint: Optional[str]) -> Dict[str, Any]:
    """Keywords of `s3fs.S3FileSystem` under which OBS works too."""
    # OBS refuses the bucket in the path, and the checksums that newer SDKs add by themselves.
    config = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "virtual"},
        "connect_timeout": _CONNECT_S,
        "read_timeout": _READ_S,
        "retries": {"max_attempts": 0},
        "max_pool_connections": 2 * THREADS,
    }
    options: Dict[str, Any] = {
        "config_kwargs": config,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
    if endpoint:
        options["endpoint_url"] = endpoint
        region = _OBS_HOST.match(endpoint)
        if region:
            options["client_kwargs"] = {"region_name": region.group(1)}
    return options
