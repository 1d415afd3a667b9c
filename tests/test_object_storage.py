"""URLs as paths against an S3 server: both ways, interrupted, failing, refused, and full disks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, Iterator, List

import numpy as np
import pytest
from s3_server import Proxy, Server, files_below, first, free_port, is_content, run_server
from test_data_idx import content as idx_content
from test_data_idx import write_idx
from test_data_tar import samples, write_shards

from src.args import Config, EvalRun, parse_args, replace
from src.data.sources import open_source
from src.errors import UserError
from src.serving.complete_config import complete_by_file
from src.serving.export_record import (
    ExportRecord,
    read_record,
    record_path,
    transform_of,
    write_record,
)
from src.storage import moxing_adapter
from src.storage import remote_files as storage
from src.storage.moxing_adapter import local_copy, read_small_file, real_moxing, stage
from src.storage.staging import stage_inputs
from src.storage.staging_owner import StagingOwner
from src.storage.uploads import RunMirror

ROOT = Path(__file__).resolve().parent.parent

# stage(url) in a process of its own: URL CACHE ENDPOINT
STAGE = """
import sys, pathlib
from src.storage.moxing_adapter import stage
print(stage(sys.argv[1], cache=pathlib.Path(sys.argv[2]), endpoint=sys.argv[3]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("s3fs")
    yield from run_server(tmp_path_factory.mktemp("moto"))


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.url)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE_S", 0.02)


def random_files(count: int, size: int) -> Dict[str, bytes]:
    rng = np.random.default_rng(count)
    return {f"train/class{i % 7}/{i:05d}.jpg": rng.bytes(size + i % 3) for i in range(count)}


def write(folder: Path, files: Dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def both_ways(server: Server, bucket: str, files: Dict[str, bytes], folder: Path) -> None:
    server.put(bucket, {})
    mirror = RunMirror(write(folder / "up", files), f"s3://{bucket}/run", endpoint=server.url)
    mirror.send()
    assert mirror.failed == {}
    there = server.get(bucket, "run/")
    assert {name[4:]: content for name, content in there.items()} == files
    found = stage(f"s3://{bucket}/run", cache=folder / "cache", endpoint=server.url)
    assert files_below(found) == files
    assert not [path for path in found.rglob("*") if path.name.startswith(".")]


def test_files_come_and_go(server: Server, tmp_path: Path) -> None:
    odd = {"val/a b+c%2F&é/中文.jpg": b"x", "empty": b"", "big": b"0123456789" * 200_000}
    both_ways(server, "both", {**random_files(40, 2_000), **odd}, tmp_path)


@pytest.mark.slow
def test_two_thousand_small_files_and_a_large_one(server: Server, tmp_path: Path) -> None:
    large = np.random.default_rng(0).bytes(300_000_000)
    both_ways(server, "many", {**random_files(2_000, 4_000), "large.bin": large}, tmp_path)


def test_a_second_call_copies_what_has_changed(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    server.put("changes", {"d/a": b"1", "d/b": b"2", "d/sub/c": b"3", "d/": b""})

    def staged() -> Dict[str, bytes]:
        proxy.calls.clear()
        return files_below(stage("s3://changes/d/", cache=tmp_path, endpoint=proxy.url))

    assert staged() == {"a": b"1", "b": b"2", "sub/c": b"3"}
    assert len(proxy.gets()) == 3
    index = local_copy("s3://changes/d", tmp_path) / ".image_index.npz"
    index.write_bytes(b"ours")
    assert staged() == {"a": b"1", "b": b"2", "sub/c": b"3"}
    assert proxy.gets() == []
    time.sleep(1.1)  # the server's clock has whole seconds
    server.put("changes", {"d/a": b"9"})
    server.client.delete_object(Bucket="changes", Key="d/sub/c")
    assert staged() == {"a": b"9", "b": b"2"}
    assert [call.path for call in proxy.gets()] == ["/changes/d/a"]
    assert index.read_bytes() == b"ours"


def test_a_single_file(server: Server, tmp_path: Path) -> None:
    server.put("single", {"w/x.ckpt": b"weights", "w/x.ckpt.txt": b"other"})
    path = stage("s3://single/w/x.ckpt", cache=tmp_path, endpoint=server.url)
    assert (path.name, path.read_bytes()) == ("x.ckpt", b"weights")
    assert read_small_file("s3://single/w/x.ckpt", endpoint=server.url) == b"weights"
    with pytest.raises(UserError, match="s3://single/w: a folder"):
        read_small_file("s3://single/w", endpoint=server.url)


def test_idx_files_at_a_url_are_read(server: Server, tmp_path: Path) -> None:
    write_idx(tmp_path / "here" / "MNIST" / "raw", ".gz")
    server.put("idx", {f"d/{name}": data for name, data in files_below(tmp_path / "here").items()})
    place = ["--obs_endpoint", server.url, "--cache_dir", str(tmp_path / "cache")]
    words = ["--set", "MNIST", "--num_classes", "10", "--data_url", "s3://idx/d", *place]
    config = stage_inputs(parse_args(words))
    images, labels = idx_content("train")
    source = open_source(config, training=True)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.read(7)[..., 2], images[7])


def test_tar_shards_at_a_url_are_read(server: Server, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_shards(tmp_path / "here", split, samples(split, 8))
    server.put("tars", {f"d/{name}": data for name, data in files_below(tmp_path / "here").items()})
    place = ["--obs_endpoint", server.url, "--cache_dir", str(tmp_path / "cache")]
    words = ["--set", "WebDataset", "--num_classes", "2", "--data_url", "s3://tars/d", *place]
    source = open_source(stage_inputs(parse_args(words)), training=True)
    due = open_source(parse_args([*words, "--data_url", str(tmp_path / "here")]), training=True)
    np.testing.assert_array_equal(source.labels, due.labels)
    np.testing.assert_array_equal(source.read(7), due.read(7))


def test_an_exported_network_comes_with_its_record(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"network")
    sha256 = hashlib.sha256(b"network").hexdigest()
    record = ExportRecord(
        *("cct_2_3x2_32", 2, 16, "uint8_nhwc", None), transform_of(Config()), sha256, "2.10"
    )
    write_record(path, record)
    server.put("exported", {"w/net.onnx": b"network", "alone/net.onnx": b"network"})
    server.put("exported", {"w/net.onnx.json": record_path(path).read_bytes()})
    place = ["--obs_endpoint", server.url, "--cache_dir", str(tmp_path / "cache")]

    def given(folder: str) -> EvalRun:
        return parse_args(["--pretrained", f"s3://exported/{folder}/net.onnx", *place], EvalRun)

    assert complete_by_file(given("w")).model.arch == "cct_2_3x2_32"
    staged = stage_inputs(given("w")).model.pretrained
    assert read_record(Path(str(staged))).sha256 == sha256
    with pytest.raises(UserError, match=r"s3://exported/alone/net\.onnx\.json"):
        complete_by_file(given("alone"))


def test_other_schemes(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/other/a": b"1", "/other/sub/b": b"2"})
    found = stage("memory://other", cache=tmp_path)
    assert files_below(found) == {"a": b"1", "sub/b": b"2"}
    assert stage(f"file://{found}/a", cache=tmp_path) == found / "a"
    with pytest.raises(UserError, match=r"nowhere://x: .*requirements-obs.txt"):
        stage("nowhere://x", cache=tmp_path)


# --- interrupted ----------------------------------------------------------------------------------


def start_staging(url: str, cache: Path, endpoint: str) -> subprocess.Popen:
    command = [sys.executable, "-c", STAGE, url, str(cache), endpoint]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("key", ["data_url", "pretrained", "resume", "teacher_pretrained"])
def test_every_input_may_be_a_url(tmp_path: Path, key: str) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"x")
    config = replace(EvalRun(), **{key: f"file://{file}"})
    assert stage_inputs(config) == replace(config, **{key: str(file)})


def test_killed_in_the_middle_and_continued(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    chunk = 16 * 2**20
    files = {"d/large": np.random.default_rng(1).bytes(4 * chunk + 5), **random_files(40, 100)}
    server.put("killed", files)
    proxy.pause_s = 0.5
    process = start_staging("s3://killed", tmp_path, proxy.url)
    target = local_copy("s3://killed", tmp_path)
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size for part in target.rglob(".large.*.part")) < chunk:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert (target.parent / ".owner").exists()
    assert not (target / "d" / "large").exists()
    whole = files_below(target)
    assert whole == {name: files[name] for name in whole}

    proxy.pause_s = 0.0
    proxy.calls.clear()
    assert files_below(stage("s3://killed", cache=tmp_path, endpoint=proxy.url)) == files
    assert len(proxy.gets("large")) < 5
    assert len(proxy.gets("class")) == 40 - len(whole)
    assert list(target.parent.glob(".owner*")) == []


def test_processes_of_a_host_copy_once(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    files = random_files(30, 1_000)
    server.put("once", files)
    proxy.pause_s = 0.1
    processes = [start_staging("s3://once", tmp_path, proxy.url) for _ in range(3)]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert files_below(Path(output.strip())) == files
    assert len(proxy.gets()) == 30


# An owner that cannot be looked at.
ELSEWHERE = {"user": "anna", "host": "node7", "pid": 1, "started": 1, "place": "elsewhere"}
ELSEWHERE.update(job="4711", since="2026-11-28 00:00:00", token="1")


def test_a_living_owner_is_waited_for_and_a_dead_one_is_not(tmp_path: Path) -> None:
    marker = tmp_path / ".owner"
    with (
        StagingOwner(marker, timeout_s=1, owner_s=1.0),
        pytest.raises(UserError, match=rf"process {os.getpid()} of .* within 2 s"),
        StagingOwner(marker, timeout_s=2),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    # One that shows no sign of life any more.
    marker.write_text(json.dumps(ELSEWHERE))
    start = time.monotonic()
    with StagingOwner(marker, timeout_s=10, owner_s=1.5):
        assert 1.0 < time.monotonic() - start < 8


def test_of_many_that_find_a_dead_owner_one_takes_over(tmp_path: Path) -> None:
    marker = tmp_path / ".owner"
    marker.write_text(json.dumps(ELSEWHERE))
    os.utime(marker, (0, 0))
    inside, most = [0], [0]

    def work() -> None:
        with StagingOwner(marker, timeout_s=30):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_a_takeover_that_was_killed_hinders_nobody(tmp_path: Path) -> None:
    """Its file holds the turn to look at a dead owner, as long as a sign of life counts."""
    marker, turn = tmp_path / ".owner", tmp_path / "..owner.turn.tmp"
    marker.write_text(json.dumps(ELSEWHERE))
    turn.touch()
    os.utime(marker, (0, 0))
    with pytest.raises(UserError, match="has not finished"), StagingOwner(marker, timeout_s=0.5):
        pass
    os.utime(turn, (0, 0))
    with StagingOwner(marker, timeout_s=30):
        assert list(tmp_path.iterdir()) == [marker]


# --- failing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "hang", "cut"])
def test_what_passes_is_waited_for(
    fault: str, server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "hang":
        monkeypatch.setattr(storage, "_READ_S", 1)  # the proxy is silent for 3 s
    files = random_files(5, 50_000)
    bucket = f"fault-{fault}"
    server.put(bucket, files)
    proxy.fault = first(3, fault, is_content)
    assert files_below(stage(f"s3://{bucket}", cache=tmp_path / "c", endpoint=proxy.url)) == files
    assert len(proxy.gets()) == 5 + 3

    proxy.fault = first(3, fault, lambda call: call.method == "PUT")
    folder = write(tmp_path / "run", {"last.ckpt": b"1" * 1000, "train.log": b"2"})
    mirror = RunMirror(folder, f"s3://{bucket}-up/run", endpoint=proxy.url)
    server.put(f"{bucket}-up", {})
    mirror.send()
    assert mirror.failed == {}
    assert server.get(f"{bucket}-up") == {"run/last.ckpt": b"1" * 1000, "run/train.log": b"2"}


def test_a_short_answer_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/short/a": b"0123456789"})
    whole = memory.cat_file
    answers = [b"0123", b""]

    def cat_file(path: str, **place: int) -> bytes:
        return answers.pop(0) if answers else whole(path, **place)

    monkeypatch.setattr(memory, "cat_file", cat_file)
    assert files_below(stage("memory://short", cache=tmp_path)) == {"a": b"0123456789"}
    assert answers == []


def refusal(url: str, cache: Path, endpoint: str) -> str:
    """What is said; nothing of the file may be there then."""
    with pytest.raises(UserError) as caught:
        stage(url, cache=cache, endpoint=endpoint)
    message = str(caught.value)
    assert message.startswith(f"{url}: ")
    assert "\n" not in message
    target = local_copy(url, cache)
    assert not target.exists() or files_below(target) == {}
    return message


def test_a_server_that_stays_broken(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    server.put("broken", {"d/a": b"1"})
    proxy.fault = first(10_000, "500", is_content)
    assert "obs_endpoint and the network" in refusal("s3://broken/d", tmp_path, proxy.url)
    assert len(proxy.gets()) == 6
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "obs_endpoint and the network" in refusal("s3://broken/d", tmp_path, nobody)


def test_nothing_there(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    server.put("there", {"d/a": b"1"})
    assert "bucket does not exist" in refusal("s3://absent-bucket/d", tmp_path, proxy.url)
    assert "nothing is there; check the name" in refusal("s3://there/e", tmp_path, proxy.url)
    # Neither is asked for again and again.
    assert len(proxy.calls) < 12


def test_wrong_credentials(
    server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("secret", {"d/a": b"1"})
    server.check_keys(True)
    try:
        message = refusal("s3://secret/d", tmp_path, proxy.url)
        assert "check AWS_ACCESS_KEY_ID" in message
        folder = write(tmp_path / "run", {"last.ckpt": b"1"})
        mirror = RunMirror(folder, "s3://secret/run", endpoint=proxy.url)
        mirror.send()
        assert list(mirror.failed) == ["last.ckpt"]
    finally:
        server.check_keys(False)
    mirror.send()  # the next save's
    assert mirror.failed == {}
    assert server.get("secret", "run/") == {"run/last.ckpt": b"1"}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "set AWS_ACCESS_KEY_ID" in refusal("s3://secret/d", tmp_path, server.url)


def test_no_room(
    server: Server, proxy: Proxy, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i}.bin": bytes([i]) * 1_000_000 for i in range(5)}
    server.put("room", files)
    message = refusal("s3://room", small_disk, proxy.url)
    assert "needs 72 MB" in message
    assert "set cache_dir to a larger disk" in message
    assert proxy.gets() == []  # seen before anything was copied

    # Another process fills the disk meanwhile.
    monkeypatch.setattr(
        moxing_adapter.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12)
    )
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 3_900_000)
    with pytest.raises(UserError, match="the local disk is full; make room or set cache_dir"):
        stage("s3://room", cache=small_disk, endpoint=server.url)
    target = local_copy("s3://room", small_disk)
    assert all(files[name] == content for name, content in files_below(target).items())
    # Room is made: what is there already is kept.
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert files_below(stage("s3://room", cache=small_disk, endpoint=server.url)) == files


# --- what OBS needs -------------------------------------------------------------------------------


def test_obs_gets_the_bucket_in_the_host_and_no_checksums(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    endpoint = "https://obs.cn-north-4.myhuaweicloud.com"
    files = storage.Storage("obs://bucket/d", endpoint=endpoint)
    signed = files.fs.sign("bucket/d/x")
    assert signed.startswith("https://bucket.obs.cn-north-4.myhuaweicloud.com/d/x?")
    assert "cn-north-4%2Fs3%2Faws4_request" in signed

    server.put("plain", {"a": b"1"})
    mirror = RunMirror(write(tmp_path / "r", {"b": b"2"}), "obs://plain/r", endpoint=proxy.url)
    mirror.send()
    stage("obs://plain", cache=tmp_path / "c", endpoint=proxy.url)
    assert {call.method for call in proxy.calls} >= {"GET", "PUT"}
    for call in proxy.calls:
        names = " ".join(call.headers).lower()
        assert "checksum" not in names
        assert "x-amz-trailer" not in names


def test_the_endpoint_of_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("environment", {"a": b"1"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert files_below(stage("s3://environment", cache=tmp_path)) == {"a": b"1"}


@pytest.fixture
def clean_moxing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delitem(sys.modules, "moxing", raising=False)
    return monkeypatch


@pytest.mark.parametrize("body", ["__version__ = '0.1.39'", "raise RuntimeError('no GPU')"])
def test_pypis_moxing_is_not_huaweis(
    body: str, server: Server, tmp_path: Path, clean_moxing: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site", {"moxing/__init__.py": body.encode()})
    clean_moxing.syspath_prepend(str(tmp_path / "site"))
    assert real_moxing() is None
    server.put("unrelated", {"a": b"1"})
    found = stage("obs://unrelated", cache=tmp_path / "c", endpoint=server.url)
    assert files_below(found) == {"a": b"1"}


def moxing_over(root: Path) -> SimpleNamespace:
    """Its functions as its guide describes them, over a folder instead of OBS."""

    def place(path: str) -> Path:
        return root / path[len("obs://") :] if path.startswith("obs://") else Path(path)

    def get_size(path: str, recursive: bool = False) -> int:
        if not recursive:
            return place(path).stat().st_size
        return sum(each.stat().st_size for each in place(path).rglob("*") if each.is_file())

    def copy(source: str, target: str) -> None:
        place(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place(source), place(target))

    return SimpleNamespace(
        file=SimpleNamespace(
            exists=lambda path: place(path).exists(),
            is_directory=lambda path: place(path).is_dir(),
            list_directory=lambda path: os.listdir(place(path)),
            get_size=get_size,
            copy=copy,
            copy_parallel=lambda s, t: shutil.copytree(place(s), place(t), dirs_exist_ok=True),
        )
    )


def test_huaweis_moxing_is_used_where_it_is(
    tmp_path: Path, clean_moxing: pytest.MonkeyPatch
) -> None:
    files = random_files(9, 100)
    write(tmp_path / "obs" / "bucket" / "d", files)
    clean_moxing.setitem(sys.modules, "moxing", moxing_over(tmp_path / "obs"))
    found = stage("obs://bucket/d", cache=tmp_path / "c")
    assert files_below(found) == files
    name = next(iter(files))
    file = stage(f"obs://bucket/d/{name}", cache=tmp_path / "c")
    assert file.read_bytes() == files[name]
    with pytest.raises(UserError, match="obs://bucket/e: nothing is there"):
        stage("obs://bucket/e", cache=tmp_path / "c")

    run = write(tmp_path / "run", {"last.ckpt": b"1", "metrics.csv": b"2", ".hidden": b"3"})
    mirror = RunMirror(run, "obs://bucket/run")
    assert not mirror.has_run()
    mirror.send()
    assert mirror.failed == {}
    there = tmp_path / "obs" / "bucket" / "run"
    assert files_below(there) == {"last.ckpt": b"1", "metrics.csv": b"2"}
    assert mirror.has_run()
    other = RunMirror(tmp_path / "other", "obs://bucket/run")
    other.bring_back()
    assert files_below(tmp_path / "other") == files_below(there)


# --- a run's folder -------------------------------------------------------------------------------


def test_a_run_is_brought_back_only_where_it_is_behind(server: Server, tmp_path: Path) -> None:
    server.put("back", {})

    def on(host: str) -> RunMirror:
        (tmp_path / host).mkdir(exist_ok=True)
        return RunMirror(tmp_path / host, "s3://back/run", endpoint=server.url)

    def last(host: str) -> bytes:
        return (tmp_path / host / "last.ckpt").read_bytes()

    on("a").bring_back()  # nothing there
    write(tmp_path / "a", {"last.ckpt": b"10", "epoch_001.ckpt": b"10", "metrics.csv": b"r"})
    on("a").send()
    on("b").bring_back()
    assert files_below(tmp_path / "b") == {"last.ckpt": b"10", "metrics.csv": b"r"}
    time.sleep(1.1)
    write(tmp_path / "b", {"last.ckpt": b"20"})
    on("b").send()
    write(tmp_path / "b", {"last.ckpt": b"21"})  # killed before it was sent
    on("b").bring_back()
    assert last("b") == b"21"
    on("a").bring_back()  # another host went on
    assert last("a") == b"20"
    write(tmp_path / "a", {"last.ckpt": b"22"})
    on("a").bring_back()
    assert last("a") == b"22"
    on("a").send()
    on("b").bring_back()  # both went on: what was never sent is not lost
    assert last("b") == b"21"


def test_what_is_there_is_not_sent_again(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    server.put("again", {})
    folder = write(tmp_path / "run", {"last.ckpt": b"1", "train.log": b"2"})

    def puts() -> List[str]:
        proxy.calls.clear()
        mirror = RunMirror(folder, "s3://again/run", endpoint=proxy.url)
        mirror.send()
        assert mirror.failed == {}
        return [call.path.partition("?")[0] for call in proxy.calls if call.method == "PUT"]

    assert puts() == ["/again/run/last.ckpt", "/again/run/train.log"]
    assert puts() == []
    write(folder, {"train.log": b"23"})
    assert puts() == ["/again/run/train.log"]


def test_of_two_runs_at_a_url_the_second_to_save_sends_nothing(
    server: Server, tmp_path: Path
) -> None:
    server.put("rivals", {})
    mirrors = {}
    for host in "ab":
        write(tmp_path / host, {"last.ckpt": host.encode(), "metrics.csv": host.encode()})
        mirrors[host] = RunMirror(tmp_path / host, "s3://rivals/run", endpoint=server.url)
        mirrors[host].watch()
    for host in "ab":
        mirrors[host].send()
    assert mirrors["a"].failed == {}
    assert mirrors["b"].failed == {
        "last.ckpt": "FileExistsError: another run has written there meanwhile"
    }
    time.sleep(1.1)
    write(tmp_path / "a", {"last.ckpt": b"a2"})
    mirrors["a"].send()
    mirrors["b"].send()
    assert mirrors["a"].failed == {}
    assert server.get("rivals", "run/") == {"run/last.ckpt": b"a2", "run/metrics.csv": b"a"}
