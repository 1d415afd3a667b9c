"""An S3 server of its own process on loopback (moto's), and a proxy before it that makes faults."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from urllib.request import Request, urlopen

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server(NamedTuple):
    """Where moto listens, and a client of it that is not the one under test."""

    url: str
    client: Any

    def put(self, bucket: str, files: Dict[str, bytes]) -> None:
        """Makes the bucket when it is not there, and one object of each file."""
        self.client.create_bucket(Bucket=bucket)
        for name, content in files.items():
            self.client.put_object(Bucket=bucket, Key=name, Body=content)

    def get(self, bucket: str, prefix: str = "") -> Dict[str, bytes]:
        """Every object whose name starts with `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            name: self.client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names
        }

    def check_keys(self, is_on: bool) -> None:
        """Whether the server looks at credentials from now on."""
        count = b"0" if is_on else b"1e12"
        headers = {"Content-Type": "text/plain"}
        request = Request(f"{self.url}/moto-api/reset-auth", data=count, headers=headers)
        with urlopen(request) as answer:
            assert answer.status == 200


def run_server(folder: Path) -> Iterator[Server]:
    """Starts moto, sets its keys in the environment, and ends it."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto")
    port = free_port()
    log = (folder / "moto.log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for_port(port, process)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in KEYS.items():
                patch.setenv(name, value)
            url = f"http://127.0.0.1:{port}"
            yield Server(url, boto3.client("s3", endpoint_url=url, region_name="us-east-1"))
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_for_port(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "moto ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("moto does not listen")


class Call(NamedTuple):
    """One request that came to the proxy."""

    method: str
    path: str
    headers: Dict[str, str]


# What is done with a request: None: it is passed on; "500", "hang", "cut" (the answer breaks off).
Fault = Callable[[Call], Optional[str]]


class Proxy:
    """Passes requests on to a server, but for those that `fault` picks.

    Attributes:
        calls: every request so far.
        fault: see Fault.
        pause_s: before the answer to each GET.
    """

    def __init__(self, target: str) -> None:
        self.calls: List[Call] = []
        self.fault: Fault = lambda call: None
        self.pause_s = 0.0
        self._target = target.rpartition("//")[2]
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def gets(self, name: str = "") -> List[Call]:
        """Requests for the content of objects whose name holds `name`."""
        found = [call for call in self.calls if call.method == "GET" and "?" not in call.path]
        return [call for call in found if name in call.path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        call = Call(handler.command, handler.path, dict(handler.headers))
        self.calls.append(call)
        fault = self.fault(call)
        if fault == "hang":
            time.sleep(3)
            handler.close_connection = True
            return
        if fault == "500":
            handler.send_response(500)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if call.method == "GET":
            time.sleep(self.pause_s)
        self._pass_on(handler, body, is_cut=fault == "cut")

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes, *, is_cut: bool) -> None:
        connection = http.client.HTTPConnection(self._target)
        # The Host header stays: the signature covers it.
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        answer = connection.getresponse()
        content = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(content)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            handler.close_connection = True
        connection.close()


def first(count: int, fault: str, where: Callable[[Call], bool] = lambda call: True) -> Fault:
    """`fault` for the first `count` requests that are `where`."""
    lock, left = threading.Lock(), [count]

    def decide(call: Call) -> Optional[str]:
        if not where(call):
            return None
        with lock:
            left[0] -= 1
            return fault if left[0] >= 0 else None

    return decide


def is_content(call: Call) -> bool:
    """A request for the content of an object."""
    return call.method == "GET" and "?" not in call.path


def files_below(folder: Path) -> Dict[str, bytes]:
    """Every file that is not hidden."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.split(os.sep))
    }
