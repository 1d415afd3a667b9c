"""train.py and eval.py with URLs in the place of paths, as on ModelArts."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Iterator, List, Optional

import pytest
from digits_run import start, steps, wait_for_step
from distributed_run import GLOBAL_BATCH, STEPS, VAL_IMAGES, words, write_images
from s3_server import Call, Proxy, Server, files_below, run_server

import eval as eval_program
import train as train_program
from src.args import parse_args
from src.checkpoints.checkpoint import read_checkpoint
from src.errors import UserError
from src.storage import remote_files as storage
from src.storage.moxing_adapter import local_copy
from src.storage.staging import cache_folder

DATA, RUN = "s3://runs/images", "s3://runs/out"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("s3fs")
    for server in run_server(tmp_path_factory.mktemp("moto")):
        images = files_below(write_images(tmp_path_factory.mktemp("data") / "images"))
        server.put("runs", {f"images/{name}": content for name, content in images.items()})
        server.put("runs", {"recipes/base.yaml": b"seed: 3\nlabel_smoothing: 0.2\n"})
        server.put("runs", {"recipes/x.yaml": b"base: base.yaml\nwarmup_length: 0\n"})
        yield server


def arguments(cache: Path, endpoint: str, *more: str) -> List[str]:
    urls = ["--data_url", DATA, "--train_url", RUN, "--config", "s3://runs/recipes/x.yaml"]
    options = ["--cache_dir", str(cache), "--obs_endpoint", endpoint]
    shallow = ["--model_args", "{embed_dim: 24, depth: 1, num_heads: 3, patch_size: 8}"]
    return [*words(cache, cache, GLOBAL_BATCH), *shallow, *urls, *options, *more]


def is_refused(call: Call) -> Optional[str]:
    return "500" if call.method == "PUT" and "ckpt" in call.path else None


def test_a_run_between_hosts(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = _stopped_by_sigterm(server, tmp_path / "first")

    # Another host goes on. The bucket takes no checkpoints from it: that does not stop it, but is
    # not forgotten either.
    monkeypatch.setattr(storage, "_TRIES", 2)
    monkeypatch.setattr(storage, "_FIRST_PAUSE_S", 0.01)
    proxy = Proxy(server.url)
    proxy.fault = is_refused
    second = tmp_path / "second"
    given = arguments(second, proxy.url)
    assert train_program.main(given) == 2
    assert f"train_url '{RUN}' holds a run already" in capsys.readouterr().err
    assert train_program.main([*given, "--resume", "auto"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: train_url '{RUN}': 3 file(s) were not uploaded")
    assert "(best.ckpt, epoch_001.ckpt, last.ckpt)" in error
    run = local_copy(RUN, second)
    assert steps(run) == list(range(1, STEPS + 1))
    assert f"at step {stopped}" in (run / "train.log").read_text()
    assert server.get("runs", "out/")["out/metrics.csv"] == (run / "metrics.csv").read_bytes()

    # Nothing is left to do but to send them.
    proxy.fault = lambda call: None
    assert train_program.main([*given, "--resume", "auto"]) == 0
    there = server.get("runs", "out/")
    assert {f"out/{name}": content for name, content in files_below(run).items()} == there
    assert {"out/report.html", "out/epoch_001.ckpt", "out/best.ckpt"} <= set(there)
    proxy.close()
    recipe = (run / "config.yaml").read_text()
    assert "label_smoothing: 0.1" in recipe  # the command line's
    assert "warmup_length: 0  # s3://runs/recipes/x.yaml:2" in recipe
    assert "seed: 3  # s3://runs/recipes/base.yaml:1" in recipe

    weights = ["--pretrained", f"{RUN}/best.ckpt", "--train_url", "s3://runs/scores"]
    assert eval_program.main(arguments(second, server.url, *weights)) == 0
    report = json.loads(server.get("runs", "scores/")["scores/eval_best_images_val.json"])
    assert report["images"] == VAL_IMAGES


def _stopped_by_sigterm(server: Server, cache: Path) -> int:
    """Trains on ModelArts for some steps; the step that is in the bucket then."""
    platform = ["--run_modelarts", "True", "--device_num", "1", "--ma_job=a", "--lr", "0.001"]
    process = start(arguments(cache, server.url, *platform, "--save_steps", "100"))
    local = local_copy(RUN, cache)
    wait_for_step(process, local, 4)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "run_modelarts: ignored --device_num 1 --ma_job=a" in errors
    there = server.get("runs", "out/")
    assert {f"out/{name}": content for name, content in files_below(local).items()} == there
    step: int = read_checkpoint(local / "last.ckpt").record.step
    assert 4 <= step < STEPS
    return step


# --- arguments of the platform --------------------------------------------------------------------


def test_options_of_the_platform_are_ignored_on_modelarts_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "x.yaml"
    recipe.write_text("run_modelarts: True\n")
    unknown = ["--device_num", "8", "--init_method=tcp://x", "-q", "1"]
    for flag in (["--run_modelarts"], ["--run_modelarts=yes"], ["--config", str(recipe)]):
        config = parse_args([*unknown, "-b", "32", *flag, "-j8", "--lr", "-1e-3".strip("-")])
        assert config.run.run_modelarts
        assert (config.data.batch_size, config.data.num_parallel_workers) == (32, 8)
        assert cache_folder(config) == Path("/cache")
        ignored = " ".join(unknown)
        assert f"run_modelarts: ignored {ignored}" in capsys.readouterr().err
    for flag in ([], ["--run_modelarts", "False"], ["--config", str(recipe), "--run_modelarts=no"]):
        with pytest.raises(UserError, match="--device_num: unknown option"):
            parse_args([*flag, *unknown, "--debug"])
    # A key's own value is never taken for the platform's.
    with pytest.raises(UserError, match="batch_size: x is not allowed"):
        parse_args(["--run_modelarts", "--batch_size", "x", "--debug"])
    assert cache_folder(parse_args([])) == Path("data/cache")
    assert cache_folder(parse_args(["--run_modelarts", "--cache_dir", "/x"])) == Path("/x")


def test_a_recipe_at_a_url_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SystemExit):
        parse_args(["--config", "memory://no/x.yaml"])
    error = capsys.readouterr().err
    assert error.startswith("error: command line: --config: ")
    assert "memory://no/x.yaml: nothing is there; check the name" in error
