"""The first lines of a run say what is so."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest
import yaml

from src.args import Config, from_yaml_text, parse_args, recipes_amp_level, replace, to_yaml
from src.checkpoints.saved_record import SavedRecord
from src.kernels import selection
from src.optim.schedulers import create_lr_schedule
from src.runtime import device, memory
from src.runtime.device import describe_device
from src.trainer.announcement import about_the_level, describe_run
from src.trainer.build import build_network

SMALL: Any = {"arch": "cct_2_3x2_32", "num_classes": 4, "image_size": 16, "epochs": 2}
ONE_BLOCK = {"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 8}
DATA: Any = SimpleNamespace(num_samples=300, steps_per_epoch=4)


def header(config: Config) -> str:
    rates = create_lr_schedule(config.optim, epochs=config.train.epochs, steps_per_epoch=4)
    lines = describe_run(config, build_network(config), (DATA, DATA), rates, world_size=1)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "4 an epoch, 8 in all (2 epochs)"),
        ({"epochs": 1}, "4 an epoch, 4 in all (1 epoch)"),
        ({"cooldown_epochs": 10}, "4 an epoch, 48 in all (2 epochs and 10 of cooldown)"),
        (
            {"warmup_length": 1, "warmup_mode": "prefix", "cooldown_epochs": 3},
            "24 in all (1 of warmup and 2 epochs and 3 of cooldown)",
        ),
        ({"warmup_length": 1}, "8 in all (2 epochs)"),
        ({"lr_cycles": 3, "lr_scheduler": "cosine_lr"}, "24 in all (3 cycles of 2 epochs)"),
        ({"repeated_aug": 3}, "repeated_aug 3: an epoch takes one image in 3, 3 times each"),
    ],
)
def test_epochs_and_steps(keys: Any, said: str) -> None:
    assert said in header(replace(Config(), **{**SMALL, **keys}))


def test_kernels_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    allowed = memory.Allowance(3 * 2**30, "ulimit -v allows")
    monkeypatch.setattr(device, "host_allowance", lambda: allowed)
    with selection.using(selection.PURE):
        config = replace(
            Config(), **{**SMALL, "arch": "deit_tiny_patch16_224"}, model_args=ONE_BLOCK
        )
        assert f"CPU ({cores} cores, 3.0 GiB, kernels pure)" in header(config)
        assert "kernels off)" in header(replace(config, amp_level="O1"))
    with selection.using(selection.OFF):
        assert "kernels off)" in header(config)
    monkeypatch.setitem(selection._STATE, "form", selection.NATIVE)
    said = describe_device(config.run, network_has_kernels=False)
    assert "kernels native in the optimizer only" in said


def recipe(folder: Path, **keys: Any) -> List[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **keys}))
    return ["--config", str(path)]


def test_a_recipes_half_precision_is_not_for_a_cpu(tmp_path: Path) -> None:
    words = recipe(tmp_path, amp_level="O2", device_target="Ascend")
    assert parse_args(words).train.amp_level == "O2"
    config = parse_args([*words, "--device_target", "CPU"])
    assert config.train.amp_level == "O0"
    (line,) = about_the_level(config)
    assert line.startswith("the recipe's amp_level O2 takes longer and more memory")
    assert line in header(config)
    assert "amp_level O0\n" in header(config)
    # The advice, and what a checkpoint's record says, hold.
    given = parse_args([*words, "--device_target", "CPU", "--amp_level", "O2"])
    assert given.train.amp_level == "O2"
    assert "--amp_level O0 does neither" in "".join(about_the_level(given))
    assert from_yaml_text(to_yaml(given), "a checkpoint").train.amp_level == "O2"
    assert replace(given, epochs=1).train.amp_level == "O2"


@pytest.mark.parametrize("level", ["O0", "auto"])
def test_nothing_is_said_of_a_recipe_for_any_device(tmp_path: Path, level: str) -> None:
    config = parse_args(recipe(tmp_path, amp_level=level))
    assert config.train.amp_level == level
    assert about_the_level(config) == []
    assert recipes_amp_level(config) == ""


def test_a_resume_compares_what_is_computed(tmp_path: Path) -> None:
    from src.checkpoints.checkpoint import Checkpoint
    from src.errors import UserError
    from src.trainer.run import check_same_recipe

    words = recipe(tmp_path, amp_level="O1")
    began = parse_args([*words, "--amp_level", "O1"])
    checkpoint = Checkpoint(Path("last.ckpt"), {}, SavedRecord(config=to_yaml(began)))
    with pytest.raises(UserError, match="amp_level O1 -> O0"):
        check_same_recipe(parse_args(words), checkpoint)
    check_same_recipe(parse_args([*words, "--amp_level", "O1"]), checkpoint)
