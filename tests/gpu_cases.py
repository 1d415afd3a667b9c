"""Networks that are trained, evaluated and exported for a GPU, under `cuda_stand_in.py`.

    python tests/gpu_cases.py [FILE]    # writes the compile table of docs/gpu.md into it

A case is a phase of `PHASES`, an architecture of `small_networks.py` and words of a recipe. Many of
them share a process, because importing the framework takes as long as one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import cuda_stand_in

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Case = Sequence[str]
OPTIMIZERS = ("adamw", "adamweightdecay", "sgd", "momentum", "lamb", "lion")
LEVELS = ("O0", "O1", "O2", "O3")
# Words that distil: the teacher's weights are written where the cases run.
TEACHER = ("--teacher_arch", "cct_2_3x2_32", "--teacher_pretrained", "teacher.ckpt")
MARKS = ("<!-- made by tests/gpu_cases.py -->", "<!-- end -->")
_BATCH = 4
_CASE, _RESULT = "=== case", "=== result "


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        error: on one line; None: it ran.
        expanded: operators that have no kernel and were made of others.
        on_cpu: operators that have no kernel and are left to the host.
    """

    error: Optional[str]
    expanded: Sequence[str]
    on_cpu: Sequence[str]


def run(cases: Sequence[Case], folder: Path, *, timeout_s: float = 3600) -> List[Outcome]:
    """Their outcomes, from one process that has `folder` for its files."""
    variables = cuda_stand_in.build(folder)
    # How kernels are selected is told at level 1, by one part of the framework.
    variables.update(GLOG_v="3", MS_SUBMODULE_LOG_v="{DEVICE:1}")
    command = [sys.executable, str(Path(__file__).resolve()), "--cases", json.dumps(cases)]
    environment = {**os.environ, **variables}
    pipes: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment, timeout=timeout_s, **pipes)
    logs = done.stdout.split(f"{_CASE}\n")[1:]
    if done.returncode != 0 or len(logs) != len(cases):
        raise RuntimeError(f"{cases[len(logs) - 1]}: {done.returncode}, {done.stdout[-3000:]}")
    return [outcome(log) for log in logs]


def outcome(log: str) -> Outcome:
    """Read from what the framework said."""
    result = json.loads(log.split(_RESULT)[1].splitlines()[0])
    expanded, on_cpu = set(), set(re.findall(r"kernel (\w+) and will try to backoff on CPU", log))
    for message in log.split("Unsupported op [")[1:]:
        name, _, rest = message.partition("]")
        (expanded if "but expand success" in rest.split("[INFO]")[0] else on_cpu).add(name)
    return Outcome(result, sorted(expanded), sorted(on_cpu))


# --- in the process -------------------------------------------------------------------------------


def _images(config: Any) -> Any:
    import numpy as np
    from mindspore import Tensor

    side = config.model.image_size
    return Tensor(np.zeros((_BATCH, side, side, 3), np.uint8))


def _train(config: Any) -> None:
    """Three steps: the last of an accumulation among them."""
    import mindspore as ms
    import numpy as np
    from small_networks import write_checkpoint

    from src.data.augment.random_erasing import BOX_COLUMNS
    from src.trainer.build import build_network, build_train_step

    if config.optim.teacher_arch:
        write_checkpoint(config.optim.teacher_arch, Path(config.optim.teacher_pretrained))
    columns = 5 + (BOX_COLUMNS * config.data.re_count if config.data.re_prob > 0 else 0)
    label = ms.Tensor(np.arange(_BATCH, dtype=np.int32))
    mix = ms.Tensor(np.zeros((_BATCH, columns), np.float32))
    step = build_train_step(config, build_network(config)).set_train(True)
    for _ in range(3):
        for output in step(_images(config), label, mix, ms.Tensor(1e-3, ms.float32)):
            output.asnumpy()


def _eval_net(config: Any) -> Any:
    from model_parity import load_rule_weights

    from src.trainer.build import build_eval_net, build_network

    return build_eval_net(config, load_rule_weights(build_network(config))).set_train(False)


def _evaluate(config: Any) -> None:
    logits = _eval_net(config)(_images(config))
    assert logits.shape == (_BATCH, config.model.num_classes)


def _export(config: Any) -> None:
    """Writes ARCH.mindir, with the weights of the rule."""
    import mindspore as ms

    network = _eval_net(config)
    ms.export(network, _images(config), file_name=config.model.arch, file_format="MINDIR")


def _without_kernel(_: Any) -> None:
    """An operator that only the host has."""
    import numpy as np
    from mindspore import Tensor, nn, ops

    class Eigenvalues(nn.Cell):
        def construct(self, x: Tensor) -> Any:
            return ops.Eig()(x)

    Eigenvalues()(Tensor(np.eye(2, dtype=np.float32)))


PHASES: Dict[str, Callable[[Any], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "without kernel": _without_kernel,
}


def _work_on(cases: Sequence[Case]) -> None:
    from small_networks import words

    from src.args import parse_args
    from src.errors import on_one_line
    from src.runtime.device import setup_device

    for phase, arch, *more in cases:
        print(_CASE, file=sys.stderr, flush=True)
        fixed = ("--device_target", "GPU", "--batch_size", str(_BATCH))
        config = parse_args([*words(arch), *fixed, *more])
        setup_device(config.run, seed=1)
        result = None
        try:
            PHASES[phase](config)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            result = on_one_line(error)
        print(f"{_RESULT}{json.dumps(result)}", file=sys.stderr, flush=True)


# --- the table ------------------------------------------------------------------------------------


def table(results: Dict[Tuple[str, str, str], Outcome]) -> str:
    """Markdown: a row for each family and optimizer, a column for each level; empty: not run."""
    lines = [f"| network | optimizer | {' | '.join(LEVELS)} |", "|---" * (2 + len(LEVELS)) + "|"]
    for arch, optimizer in dict.fromkeys(key[:2] for key in results):
        cells = [results.get((arch, optimizer, level)) for level in LEVELS]
        found = ["" if cell is None else cell.error or "yes" for cell in cells]
        lines.append(f"| {arch} | {optimizer} | {' | '.join(found)} |")
    for name, said in (("expanded", "made of others"), ("on_cpu", "left to the host")):
        operators = sorted({o for one in results.values() for o in getattr(one, name)})
        lines += ["", f"Operators without a kernel, {said}: {', '.join(operators) or 'none'}."]
    return "\n".join(lines)


def write_table(page: Optional[Path]) -> None:
    """Runs every family with every optimizer at every level; without a page, prints it."""
    from small_networks import ARGUMENTS

    results = {}
    for arch in ARGUMENTS:
        keys = list(itertools.product([arch], OPTIMIZERS, LEVELS))
        cases = [("train", a, "--optimizer", o, "--amp_level", level) for a, o, level in keys]
        with tempfile.TemporaryDirectory() as folder:
            results.update(zip(keys, run(cases, Path(folder))))
        print(arch, file=sys.stderr, flush=True)
    if page is None:
        print(table(results))
        return
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    text = f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cases"]:
        _work_on(json.loads(sys.argv[2]))
    else:
        write_table(Path(sys.argv[1]) if sys.argv[1:] else None)
