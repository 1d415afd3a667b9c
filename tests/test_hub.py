"""Files from a hub: fetched once, and one line for each way in which that fails."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

pytest.importorskip("huggingface_hub")
from hub_server import HubServer, hub
from huggingface_hub import constants

from src.errors import UserError
from src.storage.hub import fetch_file

ROOT = Path(__file__).resolve().parent.parent
NAME, FILE = "timm/test_convnext.r160_in1k", "model.safetensors"
CONTENT = os.urandom(3 << 20)
PURPOSE = "pretrained 'test_convnext.r160_in1k'"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "hub" / NAME
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(CONTENT)
    with hub(tmp_path / "hub") as found:
        yield found


def fetch(*names: str) -> Path:
    path, digest = fetch_file(NAME, names or (FILE,), purpose=PURPOSE)
    assert path.read_bytes() == CONTENT
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    return path


def refusal(*names: str, repository: str = NAME) -> str:
    with pytest.raises(UserError) as refused:
        fetch_file(repository, names or (FILE,), purpose=PURPOSE)
    message = str(refused.value)
    assert message.startswith(f"{PURPOSE}: ")
    assert "\n" not in message
    return message


def test_a_file_is_fetched_once(server: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = fetch()
    assert [m for m in caplog.messages if "HTTP Request" in m] == []
    downloads = [request for request in server.requests if request.startswith("GET")]
    assert fetch() == path
    assert [r for r in server.requests if r.startswith("GET")] == downloads
    assert downloads == [f"GET {FILE}"]


def test_the_next_name_is_taken_where_the_first_is_missing(server: HubServer) -> None:
    fetch("pytorch_model.bin", FILE)
    assert "has no a.bin nor b.bin" in refusal("a.bin", "b.bin")


def test_a_broken_connection_is_gone_on_with(server: HubServer) -> None:
    server.breaks = 1
    fetch()
    assert sum(request.startswith("GET") for request in server.requests) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "needs a token: set HF_TOKEN"),
        (403, "its licence has to be accepted"),
        (429, "too many requests"),
        (500, "status 500"),
    ],
)
def test_an_answer_that_is_no_file(
    server: HubServer, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    server.status = status
    message = refusal()
    assert words in message
    assert f"bring {server.url}/{NAME}/resolve/main/{FILE} by hand" in message


def test_a_repository_that_is_not_there(server: HubServer) -> None:
    assert "there is no such repository" in refusal(repository="timm/nobody")


def test_a_cached_file_needs_no_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == path


def test_offline_and_not_in_the_cache(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal()
    assert "not in the cache, and HF_HUB_OFFLINE is set" in message
    assert server.requests == []


def test_a_hub_that_nobody_answers_for(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    server.close()
    message = refusal()
    assert "cannot be reached" in message
    assert "set HF_ENDPOINT for a mirror" in message


def test_a_damaged_file_is_deleted_and_fetched_again(server: HubServer) -> None:
    path = fetch()
    blob = path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(CONTENT[:-1] + b"x" if CONTENT[-1:] != b"x" else CONTENT[:-1] + b"y")
    assert "another content" in refusal()
    assert not blob.exists()
    fetch()


def test_a_hub_whose_digest_is_wrong(server: HubServer) -> None:
    server.digests[FILE] = "0" * 64
    assert "was deleted; run it again" in refusal()


def test_a_full_disk(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download._download_to_tmp_and_move", full)
    message = refusal()
    assert "is full; make room, or set HF_HOME" in message


def test_two_processes_at_once(server: HubServer, tmp_path: Path) -> None:
    code = (
        "import sys; from src.storage.hub import fetch_file\n"
        f"print(fetch_file({NAME!r}, ({FILE!r},), purpose='x')[1])"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
    }
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in both:
        text, _ = process.communicate(timeout=60)
        assert text.decode().strip() == hashlib.sha256(CONTENT).hexdigest()
        assert process.returncode == 0
