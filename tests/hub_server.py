"""The few calls of the Hugging Face hub that a download makes, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List

_COMMIT = "0" * 39 + "1"


class HubServer:
    """Serves `folder`/OWNER/NAME/FILE as the file of that repository.

    Attributes:
        url: for HF_ENDPOINT.
        status: answered to every request in place of what it asked for; 0: none.
        breaks: so many downloads end after half of what is left.
        digests: SHA-256 by file name that are told in place of the true ones.
        requests: method and file of each that was for one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.status, self.breaks = folder, 0, 0
        self.digests: Dict[str, str] = {}
        self.requests: List[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                server.answer(self, with_body=False)

            def do_GET(self) -> None:
                server.answer(self, with_body=True)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, to: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        repository, _, name = to.path.lstrip("/").partition("/resolve/main/")
        self.requests += [f"{to.command} {name}"] if name else []
        path = self.folder / repository / name
        if self.status or not name or not path.is_file():
            to.send_response(self.status or 404)
            missing = "Entry" if (self.folder / repository).is_dir() else "Repo"
            codes = {0: f"{missing}NotFound", 401: "RepoNotFound", 403: "GatedRepo"}
            if self.status in codes:
                to.send_header("X-Error-Code", codes[self.status])
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        content = path.read_bytes()
        first = int(to.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0] or 0)
        digest = self.digests.get(name, hashlib.sha256(content).hexdigest())
        to.send_response(206 if first else 200)
        to.send_header("ETag", f'"{digest}"')
        to.send_header("X-Repo-Commit", _COMMIT)
        to.send_header("Accept-Ranges", "bytes")
        if first:
            to.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        to.send_header("Content-Length", str(len(content) - first))
        to.end_headers()
        if with_body:
            rest = content[first:]
            if self.breaks:
                self.breaks -= 1
                rest = rest[: len(rest) // 2]
                to.close_connection = True
            to.wfile.write(rest)


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[HubServer]:
    """A hub of the repositories below `folder`, which this process asks until the block ends."""
    from huggingface_hub import constants

    server = HubServer(folder)
    # What the package makes of its variables when it is imported.
    template = "/{repo_id}/resolve/{revision}/{filename}"
    places = {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + template,
        "HF_HUB_CACHE": str(folder.parent / "hub_cache"),
    }
    before = {name: getattr(constants, name) for name in places}
    try:
        for name, value in places.items():
            setattr(constants, name, value)
        yield server
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        server.close()
