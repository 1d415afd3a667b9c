"""Numbers that no machine has room for: one line before anything is allocated."""

from __future__ import annotations

import numpy as np
import pytest
from digits_run import ROOT

from src.args import Config, EvalRun, ExportRun, PreprocessRun, parse_args, replace
from src.data.imagenet import create_dataset
from src.errors import UserError
from src.models.registry import create_model, least_weights, list_models
from src.report.image_files import ImageStream
from src.run_length import run_length
from src.runtime import memory
from src.runtime.memory import Allowance
from src.trainer.build import build_network, check_model

RECIPE = ["--config", str(ROOT / "src/configs/cct_2_3x2_32_digits.yaml")]
# Key -> the largest value that is allowed.
LARGEST = {
    "image_size": 4096,
    "batch_size": 65_536,
    "num_classes": 10**6,
    "num_parallel_workers": 1024,
    "epochs": 10**5,
    "cooldown_epochs": 10**5,
    "lr_cycles": 10**4,
    "accumulation_step": 65_536,
    "repeated_aug": 1000,
    "re_count": 100,
    "profile": 10**4,
    "max_image_pixels": 178_956_970,
}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *((key, Config) for key in LARGEST),
        *((key, kind) for key in list(LARGEST)[:2] for kind in (EvalRun, ExportRun, PreprocessRun)),
    ],
)
def test_no_key_takes_what_no_machine_has_room_for(key, kind):
    given = [*RECIPE, "--debug", f"--{key}"]
    for value in (LARGEST[key] + 1, 10**12):
        with pytest.raises(UserError, match=rf"{key}: {value} is not allowed; .*{LARGEST[key]}\]"):
            parse_args([*given, str(value)], kind)
    parse_args([*given, str(LARGEST[key])], kind)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(memory, "host_allowance", lambda: Allowance(2**28, "this machine has"))


@pytest.mark.parametrize("training", [True, False])
def test_batches_that_cannot_fit_are_refused(tmp_path, small, training):
    config = parse_args([*RECIPE, "--data_url", str(tmp_path)])
    create_dataset(config, training=training)
    huge = replace(config, image_size=2048, batch_size=64)
    said = r"memory: 3 batches of batch_size 64 and image_size 2048 take 2.25 GiB; this machine has"
    with pytest.raises(UserError, match=said):
        create_dataset(huge, training=training)
    with pytest.raises(UserError, match=said):
        ImageStream.of_config(huge, tmp_path, ["a.png"] * 64)


def test_weights_that_cannot_fit_are_refused(small):
    config = parse_args([*RECIPE, "--num_classes", "10", "--image_size", "32"])
    check_model(config)
    huge = replace(config, arch="deit_small_patch16_224", image_size=224)
    huge = replace(huge, model_args={"embed_dim": 8192, "depth": 256, "num_heads": 8})
    with pytest.raises(UserError, match=r"memory: weights of arch deit_small_patch16_224 .*8192"):
        build_network(huge)


@pytest.mark.parametrize("name", [name for name in list_models("_32") if "tiny" not in name][:6])
def test_least_weights_are_no_more_than_there_are(name):
    network = create_model(name)
    held = sum(int(np.prod(weight.shape)) for weight in network.get_parameters())
    assert held / 12 < least_weights(name) < held


def test_a_run_of_too_many_steps_is_refused():
    config = parse_args([*RECIPE, "--epochs", "100000", "--batch_size", "2"])
    with pytest.raises(UserError, match="100000000 steps, more than the 50000000 allowed"):
        run_length(config, 2_000, world_size=1)
