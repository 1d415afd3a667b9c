"""A file at http:// or https://, from servers that nobody here knows.

Its size is announced or it is not taken; what arrives is written to the disk as it comes, and never
more than that.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional
from urllib.parse import urlsplit

from ..errors import on_one_line
from .remote_files import HTTP_SCHEMES, Listing, Refused, RemoteFile, explained, growing, retried

_CHUNK = 2**20
_SILENCE_S = 60
# Slower than this over so long is as good as silent.
_LEAST_RATE, _RATE_S = 1024, 30.0
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


class HttpFile:
    """One file; it has the methods of `Storage` that read.

    Args:
        url: http://... or https://...
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def list(self) -> Listing:
        """Size and time of the file, under the name ''.

        Raises:
            UserError: nothing there, a page, no size, no connection.
        """
        try:
            return {"": retried(self.url, self._look)}
        except Exception as error:
            raise explained(self.url, error) from error

    def _look(self) -> RemoteFile:
        with self._get({}) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise Refused(
                    "a page (text/html), no file; give the URL of a file; folders are "
                    "read from s3:// and obs://"
                )
            size = _length_of(answer)
            if size is None:
                raise Refused(
                    "the server does not say how long the file is; download it, and give its path"
                )
            return RemoteFile(size, _modified(answer))

    def read(self, most_bytes: int) -> bytes:
        """A small file.

        Raises:
            UserError: as of `list`, or it has more than `most_bytes`.
        """

        def read() -> bytes:
            with self._get({}) as answer:
                content = b"".join(_parts(answer, most_bytes + 1, most_bytes))
            announced = _length_of(answer)
            if max(len(content), announced or 0) > most_bytes:
                raise Refused(f"more than the {most_bytes:,} bytes allowed")
            _check_arrived(len(content), len(content) if announced is None else announced)
            return content

        try:
            return retried(self.url, read)
        except Exception as error:
            raise explained(self.url, error) from error

    def download(
        self,
        name: str,
        file: RemoteFile,
        target: Path,
        *,
        progress: Callable[[int], None] = lambda size: None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """See `Storage.download`. A server without ranges is asked for the whole file again."""
        with growing(target, file) as part:
            progress(part.stat().st_size)
            retried(self.url, lambda: self._continue(part, file, progress, is_over))

    def _continue(
        self,
        part: Path,
        file: RemoteFile,
        progress: Callable[[int], None],
        is_over: Callable[[], bool],
    ) -> None:
        have = part.stat().st_size
        if have == file.size:
            return
        with self._get({"Range": f"bytes={have}-"} if have else {}) as answer:
            start = _start_of(answer, have, file)
            with part.open("ab") as stream:
                stream.truncate(start)
                for data in _parts(answer, file.size - start, file.size - start):
                    if is_over():
                        return
                    stream.write(data)
                    progress(len(data))
        _check_arrived(part.stat().st_size, file.size)

    @contextlib.contextmanager
    def _get(self, headers: Dict[str, str]) -> Iterator[Any]:
        asked = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity", **headers})
        try:
            answer = _opener().open(asked, timeout=_SILENCE_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise Refused(f"{_refused(error)}") from error
            raise OSError(f"the server answers {error.code} {on_one_line(error.reason)}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise Refused(
                    f"no safe connection ({on_one_line(error.reason)}); check the name "
                    "and the clock; a private authority's certificate: set SSL_CERT_FILE"
                ) from error
            raise OSError(on_one_line(error.reason)) from error
        except (http.client.InvalidURL, ValueError) as error:
            raise Refused(
                f"no URL ({on_one_line(error)}); write blanks and what is not ASCII as %20, %C3%A9"
            ) from error
        with contextlib.closing(answer):
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise Refused(
                    f"comes compressed ({on_one_line(encoding)}) though it was asked "
                    "for as it is; download it, and give its path"
                )
            yield answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Up to five, none of them to a connection that others can read."""

    max_redirections = 5

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: Any, headers: Any, url: str
    ) -> Any:
        if urlsplit(url).scheme not in HTTP_SCHEMES[urlsplit(req.full_url).scheme == "https" :]:
            raise urllib.error.HTTPError(url, 400, f"leads to {on_one_line(url)}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _opener() -> urllib.request.OpenerDirector:
    """For these two schemes only; `build_opener` opens file:// and ftp:// too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _Redirects,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _refused(error: urllib.error.HTTPError) -> str:
    said = f"{error.code} {on_one_line(error.reason)}"
    if error.code in (404, 410):
        return f"nothing is there ({said}); check the name"
    if error.code in (401, 403, 407):
        return f"refused ({said}); download it, and give its path"
    return f"not to be had ({said}); check the URL, or download it and give its path"


def _length_of(answer: Any) -> Optional[int]:
    """What is announced of the body, bytes."""
    said = answer.headers.get("Content-Length")
    if said is None or answer.headers.get("Transfer-Encoding"):
        return None
    if not re.fullmatch(r"[0-9]{1,18}", said):
        raise Refused(f"a length of {on_one_line(said)}; download it, and give its path")
    return int(said)


def _check_arrived(count: int, due: int) -> None:
    """`http.client` takes a connection that ends for the end of the body."""
    if count < due:
        raise OSError(f"{count:,} bytes arrived of {due:,}")


def _modified(answer: Any) -> Optional[float]:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    return None


def _start_of(answer: Any, have: int, file: RemoteFile) -> int:
    """Where in the file the body begins. Raises Refused: it is of another file."""
    length, start, size = _length_of(answer), 0, _length_of(answer)
    if answer.status == 206:
        place = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        start, size = (int(place[1]), int(place[2])) if place else (-1, -1)
        if start != have or length not in (None, file.size - start):
            size = -1
    if size not in (None, file.size):
        raise Refused(
            f"{file.size:,} bytes were announced, and now others are offered than those from "
            f"{have:,}; run it again, or download it and give its path"
        )
    return start


def _parts(answer: Any, most: int, announced: int) -> Iterator[bytes]:
    """The body, in what has arrived each time; no more than `most` bytes of it.

    Raises:
        Refused: more than announced, or too slow.
    """
    begin, since, have = time.monotonic(), 0, 0
    while have < most:
        try:
            data = answer.read1(min(_CHUNK, most - have))
        except http.client.HTTPException as error:
            raise OSError(on_one_line(error)) from error
        if not data:
            return
        have += len(data)
        since += len(data)
        yield data
        passed = time.monotonic() - begin
        if passed > _RATE_S:
            if since < _LEAST_RATE * passed:
                raise Refused(
                    f"too slow ({since:,} bytes in {passed:.0f} s); what has arrived is kept: run "
                    "it again later"
                )
            begin, since = time.monotonic(), 0
    if most == announced and answer.read1(1):
        raise Refused(
            f"more than the {announced:,} bytes that were announced; download it, and give its path"
        )
