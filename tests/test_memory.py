"""Memory that does not suffice: one line with what was asked for, what there is, and what helps."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Type

import mindspore as ms
import numpy as np
import pytest
from digits_run import ROOT, failure, words

import train as train_program
from src.args import Config, EvalRun, ExportRun, PreprocessRun, parse_args, replace
from src.errors import UserError
from src.runtime import compat
from src.runtime.entry import run_entry_point
from src.runtime.memory import Allowance, explain_lack, host_allowance
from src.trainer import memory_estimate
from src.trainer.loop import Trainer
from src.trainer.memory_estimate import check_step_fits, estimate_step

RECIPE = ["--config", str(ROOT / "src/configs/deit_small_patch16_224.yaml")]
LIBRARIES = Path(ms.__file__).parent / "lib"

# (library of the wheel, its words, how a message with them goes on, what was asked for)
TEXTS = {
    "CPU, a graph": (
        "libmindspore_ms_backend.so",
        "Memory isn't enough and alloc failed, kernel name: ",
        "56_Default/qkv-NativeDense/Custom-op0, alloc size: 40108032B.\n- C++ Call Stack:",
        "38.2 MiB more",
    ),
    "a device": (
        "libmindspore_ms_backend.so",
        ") memory isn't enough and alloc failed, kernel name: ",
        "Default/Conv2D-op0, alloc size: 1073741824B.",
        "1,024.0 MiB more",
    ),
    "the pool": (
        "libmindspore_memory_pool.so",
        "Memory not enough: alloc size[",
        "524288] is",
        "0.5 MiB more",
    ),
    "PyNative": (
        "libmindspore_pynative_utils.so",
        "Malloc for kernel output failed, Memory isn't enough, node:",
        "Default/Add-op0",
        "more could not",
    ),
    "Ascend, GE": (
        "libmindspore_ge_backend.so",
        "Out of memory, Alloc GE memory failed, size: ",
        "2097152",
        "2.0 MiB more",
    ),
    "Ascend": (
        "plugin/ascend/libmindspore_ascend_res_manager.so",
        "Out of Memory!!! Request memory size: ",
        "3221225472B, Memory Statistic:",
        "3,072.0 MiB more",
    ),
    "GPU": (
        "plugin/libmindspore_gpu.so.11.6",
        "Memory not enough:#umsg#Alloc device memory[",
        "1048576] failed.",
        "1.0 MiB more",
    ),
    "GPU, free": (
        "plugin/libmindspore_gpu.so.11.6",
        "Memory not enough:#umsg#Current free memory size[",
        "1024] is smaller than required size[2097152]",
        "2.0 MiB more",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_words_of_the_installed_mindspore_are_known(name: str) -> None:
    library, words_of_it, rest, asked = TEXTS[name]
    found = [*LIBRARIES.rglob(Path(library).name), *LIBRARIES.rglob(Path(library).stem + "*")]
    if found:  # wheels for other processors have no GPU plugin
        with found[0].open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
            assert content.find(words_of_it.encode()) >= 0
    said = explain_lack(RuntimeError(f"Device(id:0{words_of_it}{rest}"), Config())
    assert said is not None
    assert asked in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("E10001: Memory_Allocation_Failure(EL0004): Failed to allocate memory."),
        RuntimeError("cudaMalloc failed: out of memory"),
    ],
    ids=str,
)
def test_other_libraries_words_are_known_as_a_cause_too(error: Exception) -> None:
    assert "this machine has" in str(explain_lack(error))
    wrapped = UserError("checkpoint: not whole")
    wrapped.__cause__ = error
    assert explain_lack(wrapped) == explain_lack(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes (3, 4) and (5, 6) do not match"),
        UserError("data_url 'out of memory': no such folder"),
        OSError(errno.ENOSPC, "out of memory"),
        ValueError("bad"),
    ],
    ids=str,
)
def test_anything_else_is_no_lack_of_memory(error: Exception) -> None:
    assert explain_lack(error, Config()) is None


def test_a_thread_that_cannot_be_started_is_its_own_message() -> None:
    assert str(explain_lack(RuntimeError("can't start new thread"))).startswith("threads: ")


def test_numpy_says_what_it_asked_for() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((2**40, 2**10))
    assert "8.00 PiB more could not be had" in str(explain_lack(caught.value))


def lack(*arguments: str, config_type: Type[Config] = Config) -> str:
    config = parse_args([*RECIPE, *arguments], config_type)
    return str(explain_lack(RuntimeError("std::bad_alloc"), config))


def test_each_program_names_the_keys_that_help_it() -> None:
    on_cpu = lack("--batch_size", "16", "--device_target", "CPU", "--amp_level", "O1")
    assert "--batch_size 8 --accumulation_step 2 (now 16 and 1: as many images a step)" in on_cpu
    assert "--amp_level O0 (O1 takes more on a CPU)" in on_cpu
    assert "a smaller --image_size (now 224)" in on_cpu
    assert "or --recompute true" in on_cpu
    assert "recompute" not in lack("--recompute", "true")
    # Half of 6 is odd: with mixing no batch.
    assert "a smaller --batch_size (now 6)" in lack("--batch_size", "6")
    assert "amp_level" not in lack("--device_target", "CPU", "--amp_level", "O0")
    on_gpu = lack("--device_target", "GPU", "--amp_level", "O0")
    assert "memory of GPU 0: more could not be had" in on_gpu
    assert "--amp_level O2" in on_gpu
    evaluation = lack("--batch_size", "32", config_type=EvalRun)
    assert "give --batch_size 16 (now 32)" in evaluation
    assert "image_size" not in evaluation
    for program in (ExportRun, PreprocessRun):
        assert "--batch_size" not in lack("--amp_level", "O0", config_type=program)  # it is 1
        assert "--batch_size 4 (now 8)" in lack("--batch_size", "8", config_type=program)


def test_what_a_message_advises_is_a_recipe() -> None:
    advice = "--batch_size 8 --accumulation_step 2"
    assert advice in lack("--batch_size", "16")
    before, after = (
        parse_args([*RECIPE, "--batch_size", "16"]),
        parse_args([*RECIPE, *advice.split()]),
    )
    products = [c.data.batch_size * c.train.accumulation_step for c in (before, after)]
    assert products[0] == products[1]


def test_the_devices_memory_is_told_where_the_framework_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "device_memory", lambda: 32 * 2**30)
    monkeypatch.setattr(compat, "max_device_memory", lambda: 31 * 2**30)
    said = lack("--device_target", "Ascend", "--device_id", "3")
    assert "memory of Ascend 3" in said
    assert "(this process has held 31.00 GiB; the device has 32.00 GiB)" in said


def fake_root(root: Path, groups: str, **limits: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree:  1 kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for place, limit in limits.items():
        path = root / "sys/fs/cgroup" / place.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "gib", "said_by"),
    [
        ("0::/\n", {"memory_dot_max": str(2 * 2**30)}, 2, "memory.max"),
        ("0::/\n", {"memory_dot_max": "max"}, 16, "this machine has"),
        (
            "0::/a/b\n",
            {"a__memory_dot_max": str(3 * 2**30), "a__b__memory_dot_max": "max"},
            3,
            "max",
        ),
        (
            "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
            {"memory__docker__1__memory_dot_limit_in_bytes": str(4 * 2**30)},
            4,
            "memory.limit_in_bytes",
        ),
        (
            "4:memory:/docker/1\n",  # seen from inside, where the group is the root
            {"memory__memory_dot_limit_in_bytes": str(5 * 2**30)},
            5,
            "memory.limit_in_bytes",
        ),
        (
            "4:memory:/\n",
            {"memory__memory_dot_limit_in_bytes": "9223372036854771712"},
            16,
            "machine",
        ),
        ("", {}, 16, "this machine has"),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, groups: str, limits: Any, gib: int, said_by: str
) -> None:
    allowed = host_allowance(fake_root(tmp_path, groups, **limits))
    assert allowed is not None
    assert allowed.num_bytes == gib * 2**30
    assert said_by in allowed.said_by


def test_a_limit_of_the_shell(tmp_path: Path) -> None:
    code = "from src.runtime.memory import host_allowance; print(host_allowance())"
    limit = 3 * 2**30
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.stdout.strip() == f"Allowance(num_bytes={limit}, said_by='ulimit -v allows')"


def test_a_program_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(config: Config) -> None:
        raise RuntimeError("Memory isn't enough and alloc failed, alloc size: 1048576B.\nstack")

    assert run_entry_point(work, [*RECIPE, "--device_target", "CPU"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memory: 1.0 MiB more could not be had (this process has held ")


# What is left of the address space shrinks once everything is built.
LIMITED = """
import resource, sys
sys.path.insert(0, {root!r})
import train
from src.trainer.loop import Trainer
announce = Trainer.announce
def limited(self):
    announce(self)
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + {mib} * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
Trainer.announce = limited
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_real_run_under_a_real_limit(tmp_path: Path) -> None:
    more = ["--batch_size", "1024", "--image_size", "32", "--num_parallel_workers", "1"]
    more += ["--model_args", "{num_layers: 1, n_conv_layers: 1}"]
    arguments = words(tmp_path / "digits", tmp_path / "run", *more)
    code = LIMITED.format(root=str(ROOT), mib=500)
    done = run_program(["-c", code, *arguments])
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "ulimit -v allows" in errors[0]
    assert "give --batch_size 512 --accumulation_step 2" in errors[0]
    assert "Traceback" not in done.stderr


def run_program(command: List[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


GIB = 2**30


def allow(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    allowed = Allowance(int(gib * GIB), "the container may use (memory.max)")
    monkeypatch.setattr(memory_estimate, "host_allowance", lambda: allowed)


def measured_as(monkeypatch: pytest.MonkeyPatch, fixed: float, per_image: float) -> List[int]:
    """Processes hold so many GiB; the batches that are asked for."""
    asked: List[int] = []

    def peak(config: Config, batch_size: int) -> int:
        asked.append(batch_size)
        return int((fixed + per_image * batch_size) * GIB)

    monkeypatch.setattr(memory_estimate, "_peak_of_a_process", peak)
    monkeypatch.setattr(memory_estimate, "host_peak", lambda: int(0.5 * GIB))
    return asked


def test_a_step_that_will_not_fit_is_refused_before_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = parse_args([*RECIPE, "--device_target", "CPU", "--batch_size", "128"])
    asked = measured_as(monkeypatch, 1.0, 0.125)
    allow(monkeypatch, 16)
    with pytest.raises(UserError) as caught:
        check_step_fits(config)
    # A quarter of 16 GiB has room for 10 images of at most (1.25 - 0.5) / 2 GiB.
    assert asked == [2, 10]
    assert str(caught.value).startswith(
        "memory: a step of batch_size 128 takes about 17.0 GiB (from steps of 2 and 10 images); "
        "the container may use (memory.max) 16.0 GiB; give --batch_size 64 --accumulation_step 2"
    )
    allow(monkeypatch, 18)
    with caplog.at_level("INFO"):
        check_step_fits(config)
    assert "dry run: a step of batch_size 128 takes about 17.0 GiB" in caplog.text
    # As many images as the step has: what is measured is the step.
    assert estimate_step(replace(config, batch_size=8), Allowance(99 * GIB, "")) == (
        2 * GIB,
        "steps of 2 and 8 images",
    )


def test_nothing_is_measured_where_any_step_fits_or_says_so_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = measured_as(monkeypatch, 1.0, 1.0)
    allow(monkeypatch, 8)
    digits = ["--config", str(ROOT / "src/configs/cct_2_3x2_32_digits.yaml")]
    check_step_fits(parse_args(digits))
    check_step_fits(parse_args([*RECIPE, "--device_target", "Ascend"]))
    assert asked == []
    monkeypatch.setattr(memory_estimate, "_peak_of_a_process", lambda *_: None)
    with caplog.at_level("INFO"):
        check_step_fits(parse_args([*RECIPE, "--device_target", "CPU"]))
    assert "could not be measured ahead" in caplog.text


def test_a_dry_run_says_it_before_it_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_as(monkeypatch, 1.0, 0.125)
    allow(monkeypatch, 0.5)
    monkeypatch.setattr(Trainer, "one_step", lambda *_: pytest.fail("it was tried"))
    arguments = words(tmp_path / "digits", tmp_path / "run", "--dry_run")
    said = failure(capsys, train_program, arguments)
    assert "a step of batch_size 64 takes about 9.0 GiB" in said
    assert not (tmp_path / "run").exists()


ESTIMATED = """
import sys
sys.path.insert(0, {root!r})
from src.args import parse_args
from src.runtime.device import setup_device
if __name__ == "__main__":
    config = parse_args(sys.argv[1:])
    setup_device(config.run, seed=1)
    from src.trainer import memory_estimate as m
    estimate = m.estimate_step(config, m.Allowance(3 * 2**30, ""))
    print(estimate.num_bytes, m._peak_of_a_process(config, config.data.batch_size))
"""


@pytest.mark.slow
def test_an_estimate_is_near_what_the_step_takes(tmp_path: Path) -> None:
    (tmp_path / "estimated.py").write_text(ESTIMATED.format(root=str(ROOT)))
    network = ["--arch", "deit_tiny_patch16_224", "--num_classes", "10", "--image_size", "112"]
    more = ["--batch_size", "64", "--model_args", "{depth: 4}"]
    done = run_program([str(tmp_path / "estimated.py"), *network, *more])
    assert done.returncode == 0, done.stderr
    estimated, real = map(int, done.stdout.split())
    assert abs(estimated - real) < 0.1 * real


def test_an_error_that_is_its_own_cause_ends() -> None:
    error = FileNotFoundError("run/last.ckpt")
    error.__cause__ = error
    assert explain_lack(error) is None
