"""Servers that lie, at http://: what they send is bounded by what they announced; one line."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from src.args import parse_args
from src.errors import UserError
from src.storage import http_files, remote_files
from src.storage.moxing_adapter import local_copy, read_small_file, stage
from src.storage.remote_files import Storage

CONTENT = bytes(range(256)) * 1000
DATE = "Sat, 28 Nov 2026 00:00:00 GMT"


class Handler(BaseHTTPRequestHandler):
    """What is sent is a function of the path's last part, kept by the server."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append(dict(self.headers))
        with_fault = ANSWERS[self.path.rpartition("/")[2]]
        try:
            with_fault(self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up += 1

    def begin(self, status: int = 200, **headers: object) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def whole(handler: Handler) -> None:
    handler.begin(Content_Length=len(CONTENT), Last_Modified=DATE)
    handler.wfile.write(CONTENT)


def ranges(handler: Handler) -> None:
    start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
    place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    body = CONTENT[start:]
    is_part = {"Content_Range": place} if start else {}
    handler.begin(206 if start else 200, Content_Length=len(body), **is_part)
    # The first answer stops in the middle.
    handler.wfile.write(body[: 100_000 if len(handler.server.asked) < 3 else None])


def other_range(handler: Handler) -> None:
    if "Range" not in handler.headers:
        return handler.begin(Content_Length=len(CONTENT))
    handler.begin(206, Content_Range=f"bytes 0-9/{len(CONTENT)}", Content_Length=10)
    handler.wfile.write(bytes(10))


def without_end(handler: Handler) -> None:
    handler.begin()
    while True:
        handler.wfile.write(bytes(2**20))


def chunks(handler: Handler) -> None:
    handler.begin(Transfer_Encoding="chunked")
    while True:
        handler.wfile.write(b"100000\r\n" + bytes(2**20) + b"\r\n")


def slow(handler: Handler) -> None:
    handler.begin(Content_Length=10**6)
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def longer(handler: Handler) -> None:
    """The second answer is longer than the first announced."""
    count = len(handler.server.asked)
    handler.begin(Content_Length=10 if count < 2 else 10**13)
    handler.wfile.write(bytes(10))


def shorter(handler: Handler) -> None:
    handler.begin(Content_Length=100)
    handler.wfile.write(b"debug: yes")


def digits_of_range(handler: Handler) -> None:
    if "Range" not in handler.headers:
        return handler.begin(Content_Length=len(CONTENT))
    handler.begin(206, Content_Range=f"bytes 5-9/{'9' * 5000}", Content_Length=5)


def large(handler: Handler) -> None:
    handler.begin(Content_Length=10**14)


def compressed(handler: Handler) -> None:
    body = gzip.compress(bytes(10**6))
    handler.begin(Content_Length=len(body), Content_Encoding="gzip")
    handler.wfile.write(body)


def page(handler: Handler) -> None:
    handler.begin(Content_Length=30, Content_Type="text/html; charset=utf-8")
    handler.wfile.write(b'<a href="../../x">x</a>       ')


def leading_to(place: str) -> Callable[[Handler], None]:
    return lambda handler: handler.begin(302, Location=place, Content_Length=0)


def headers_without_end(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        handler.wfile.write(b"X-%d: x\r\n" % number)


def status(code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.begin(code, Content_Length=0)


ANSWERS: Dict[str, Callable[[Handler], Any]] = {
    "whole": whole,
    "ranges": ranges,
    "other_range": other_range,
    "without_end": without_end,
    "chunks": chunks,
    "slow": slow,
    "digits_of_range": digits_of_range,
    "longer": longer,
    "shorter": shorter,
    "large": large,
    "negative": lambda handler: handler.begin(Content_Length=-5),
    "words": lambda handler: handler.begin(Content_Length="many"),
    "digits": lambda handler: handler.begin(Content_Length="9" * 5000),
    "compressed": compressed,
    "page": page,
    "circle": leading_to("circle"),
    "far": leading_to("far/far"),
    "to_file": leading_to("file:///etc/passwd"),
    "to_ftp": leading_to("ftp://127.0.0.1/x"),
    "nowhere": leading_to("http://127.0.0.1:1/x"),
    "to_whole": leading_to("whole"),
    "headers_without_end": headers_without_end,
    "no_http": lambda handler: handler.wfile.write(b"\x00" * 1000),
    "silence": lambda handler: None,
    "gone": status(404),
    "refused": status(403),
    "broken": status(503),
    "teapot": status(418),
}


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked, server.hung_up = True, [], 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(http_files, "_SILENCE_S", 1)
    monkeypatch.setattr(http_files, "_RATE_S", 0.3)


def url_of(server: Any, name: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/d/{name}"


REFUSALS = {
    "without_end": "does not say how long the file is",
    "chunks": "does not say how long the file is",
    "slow": "too slow (",
    "longer": "10 bytes were announced, and now others are offered",
    "shorter": "10 bytes arrived of 100",
    "large": "needs 100000067 MB",
    "negative": "a length of -5",
    "words": "a length of many",
    "digits": "a length of 9999",
    "compressed": "comes compressed (gzip)",
    "page": "a page (text/html), no file",
    "circle": "infinite loop",
    "far": "infinite loop",
    "to_file": "file:///etc/passwd' is not allowed",
    "to_ftp": "leads to ftp://127.0.0.1/x",
    "nowhere": "check the name and the network",
    "headers_without_end": "check the name and the network",
    "no_http": "check the name and the network",
    "silence": "check the name and the network",
    "gone": "nothing is there (404",
    "refused": "refused (403",
    "broken": "check the name and the network",
    "teapot": "not to be had (418",
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_is_staged_is_what_was_announced(fault: str, server: Any, tmp_path: Path) -> None:
    url, start = url_of(server, fault), time.monotonic()
    with pytest.raises(UserError) as caught:
        stage(url, cache=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{url}: ")
    assert REFUSALS[fault] in message
    assert "\n" not in message
    assert len(message) < 600
    assert time.monotonic() - start < 10
    assert not local_copy(url, tmp_path).exists()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10_000


SMALL = {name: said for name, said in REFUSALS.items() if name not in ("longer", "large")}


@pytest.mark.parametrize("fault", [*SMALL, "large", "whole"])
def test_recipes_are_small(fault: str, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    endless = {"without_end", "chunks", "large", "whole"}
    said = "more than the 65,536 bytes allowed" if fault in endless else SMALL[fault]
    said = "one value at the top level" if fault == "page" else said
    with pytest.raises(SystemExit) as caught:
        parse_args(["--config", url_of(server, fault)])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_a_file_is_staged_and_known_again(server: Any, tmp_path: Path) -> None:
    url = url_of(server, "to_whole")
    path = stage(url, cache=tmp_path)
    assert path.read_bytes() == CONTENT
    count = len(server.asked)
    assert stage(url, cache=tmp_path) == path
    assert len(server.asked) - count == 2  # the size, by way of the redirection
    assert read_small_file(url, most_bytes=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("name", ["ranges", "whole"])
def test_what_has_arrived_is_continued(name: str, server: Any, tmp_path: Path) -> None:
    url = url_of(server, name)
    storage = http_files.HttpFile(url)
    file, target = storage.list()[""], tmp_path / "x"
    part = remote_files.part_of(target, file)
    if name == "whole":  # a server without ranges sends all of it again
        part.write_bytes(b"begun")
    seen: List[int] = []
    storage.download("", file, target, progress=seen.append)
    assert target.read_bytes() == CONTENT
    asked = [headers.get("Range") for headers in server.asked]
    assert asked == [None, None, "bytes=100000-"] if name == "ranges" else [None, "bytes=5-"]
    assert not part.exists()


@pytest.mark.parametrize("fault", ["other_range", "digits_of_range"])
def test_other_ranges_are_refused(fault: str, server: Any, tmp_path: Path) -> None:
    storage = http_files.HttpFile(url_of(server, fault))
    file, target = storage.list()[""], tmp_path / "x"
    remote_files.part_of(target, file).write_bytes(b"begun")
    with pytest.raises(remote_files.Refused, match="others are offered than those from 5"):
        storage.download("", file, target)
    assert not target.exists()


@pytest.mark.parametrize("name", ["a b", "é", "x:y/z"])
def test_what_is_no_url_is_not_tried_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_FIRST_PAUSE_S", 1e6)
    url = f"http://{name}" if "/" in name else f"http://127.0.0.1:1/{name}"
    with pytest.raises(UserError, match=r"no URL \(.*%20"):
        stage(url, cache=tmp_path)


def test_a_copy_that_is_left_is_not_given_its_name(server: Any, tmp_path: Path) -> None:
    storage, target = http_files.HttpFile(url_of(server, "whole")), tmp_path / "x"
    storage.download("", storage.list()[""], target, is_over=lambda: True)
    assert not target.exists()


def test_a_part_that_is_too_long_is_begun_anew(server: Any, tmp_path: Path) -> None:
    storage, target = http_files.HttpFile(url_of(server, "whole")), tmp_path / "x"
    file = storage.list()[""]
    remote_files.part_of(target, file).write_bytes(CONTENT + b"x")
    seen: List[int] = []
    storage.download("", file, target, progress=seen.append)
    assert target.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


def certificate(folder: Path) -> Path:
    """Of an authority that nobody knows, for 127.0.0.1, with its key."""
    openssl = shutil.which("openssl") or pytest.skip("no openssl here")
    name = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "x.key"), "-out", str(folder / "x.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([openssl, "req", "-x509", *kind, *name, *files], check=True, capture_output=True)
    return folder / "x.pem"


def test_connections_that_are_not_safe(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known, tmp_path / "x.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = url_of(server, "whole").replace("http:", "https:")
    with pytest.raises(UserError, match=r"no safe connection \(.*SSL_CERT_FILE"):
        stage(url, cache=tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    assert stage(url, cache=tmp_path).read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"leads to http://127\.0\.0\.1:1/x"):
        stage(url.replace("whole", "nowhere"), cache=tmp_path)


def test_nothing_is_written_to_a_page(tmp_path: Path) -> None:
    from src.args import Config, replace
    from src.storage.staging import localize_output

    config = replace(Config(), train_url="https://127.0.0.1/x")
    with pytest.raises(UserError, match="nothing is written to http:// and https://"):
        localize_output(config, continues=True)


# --- listings -------------------------------------------------------------------------------------


LISTINGS: Dict[str, Tuple[List[str], str]] = {
    "above": (["a/../../x"], "'..'"),
    "itself": (["a/./x"], "'.'"),
    "nothing": (["a//x"], "nothing for a name"),
    "absolute": (["/etc/x"], "nothing for a name"),
    "NUL": (["a\0x"], "NUL"),
    "long": (["x" * 221], "more than 220 bytes"),
    "file and folder": (["a", "a/x"], "below a name that is a file too"),
    "unfinished": (["a/.x.0.part"], "unfinished copies"),
    "lines": (["a\nb/.."], r"a\nb/.."),
}


def listing_of(names: Dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Storage:
    pytest.importorskip("fsspec")
    storage = Storage("memory://hostile")
    found = {f"/hostile/{name}": {"size": size} for name, size in names.items()}
    monkeypatch.setattr(type(storage.fs), "find", lambda *_, **__: found)
    return storage


@pytest.mark.parametrize("fault", LISTINGS)
def test_names_that_lead_elsewhere(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, said = LISTINGS[fault]
    storage = listing_of(dict.fromkeys(names, 1), monkeypatch)
    with pytest.raises(UserError) as caught:
        storage.list()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [None, -1, "1", 1.5, True])
def test_sizes_that_are_none(size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = listing_of({"x": size}, monkeypatch)
    with pytest.raises(UserError, match=r"does not say how large '/hostile/x' is"):
        storage.list()


def test_a_listing_of_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = listing_of({"x": 1}, monkeypatch)
    monkeypatch.setattr(type(storage.fs), "find", lambda *_, **__: {"/other/x": {"size": 1}})
    with pytest.raises(UserError, match="'/other/x', which is not below it"):
        storage.list()


@pytest.mark.parametrize("announced", [None, 11, 10**15])
def test_an_object_longer_than_its_range_is_not_read(announced: Any) -> None:
    class Bucket:
        def split_path(self, remote: str) -> Tuple[str, str, None]:
            return "bucket", "key", None

        async def _call_s3(self, method: str, **asked: str) -> Dict[str, Any]:
            assert (method, asked["Range"]) == ("get_object", "bytes=5-14")
            return {"ContentLength": announced, "Body": SimpleNamespace(close=lambda: None)}

    with pytest.raises(remote_files.Refused, match=rf"sends {announced} bytes of b/x for 10"):
        asyncio.run(remote_files._get_s3_part(Bucket(), "b/x", 5, 15))


def test_a_url_cannot_name_a_folder_of_the_cache(tmp_path: Path) -> None:
    for end in ("..", ".", ".owner", "x" * 300):
        folder = local_copy(f"s3://b/x/{end}", tmp_path)
        assert folder.name == "data"
        assert folder.parent.parent == tmp_path
    assert os.path.commonpath([tmp_path, local_copy("s3://b/x", tmp_path)]) == str(tmp_path)
