"""Every recipe of src/configs: it loads, its network exists, and its header says what it must."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any, Dict

import pytest
from test_models import uninitialised

from src.args import Config, from_yaml_text, parse_args
from src.models.registry import create_model, list_models

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "src" / "configs"
# finetune.yaml is for any network, and nobody's published recipe: tests/test_own_folder.py.
RECIPES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.stem != "finetune")
SEEDS = {
    "convmixer_1536_20.yaml": "convmixer",
    "convnext_tiny.yaml": "convnext",
    "cct_14-7x2_imagenet.yaml": "cct",
    "deit_small_patch16_224.yaml": "deit",
    "twin_s.yaml": "twins",
}
OFFICIAL = {
    "convmixer_1536_20.yaml": "convmixer_1536_20_official.yaml",
    "convnext_tiny.yaml": "convnext_tiny_official.yaml",
    "cct_14-7x2_imagenet.yaml": "cct_14_7x2_224_official.yaml",
    "deit_small_patch16_224.yaml": "deit_small_patch16_224_official.yaml",
    "twin_s.yaml": "pcpvt_small_v0_official.yaml",
}
HEADINGS = ("Command", "Global batch", "Expected top-1", "Deviations from the authors'")


@cache
def config(name: str) -> Config:
    return parse_args(["--config", str(FOLDER / name)])


def header(name: str) -> str:
    """The comment at the top, on one line."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line[1:].strip() for line in lines[:end])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_loads_and_its_network_can_be_built(name: str) -> None:
    model = config(name).model
    assert model.arch in list_models()
    side = re.search(r"_(32|224|384)(_|$)", model.arch)
    if side and not re.search("digits|mnist", name):
        assert model.image_size == int(side[1])
    with uninitialised():
        network = create_model(
            model.arch,
            num_classes=model.num_classes,
            img_size=model.image_size,
            drop_path_rate=model.drop_path_rate,
            nonlinearity=model.nonlinearity,
            **model.model_args,
        )
    assert next(iter(network.get_parameters())).name


@pytest.mark.parametrize("name", RECIPES)
def test_header_says_paper_command_batch_result_and_deviations(name: str) -> None:
    text = header(name)
    positions = [text.index(heading) for heading in HEADINGS]
    assert positions == sorted(positions)
    assert re.search(r"\b20[12]\d\b", text[: positions[0]])
    command, batch, top1, _ = (
        text[start:end] for start, end in zip(positions, [*positions[1:], None])
    )
    assert f"python train.py --config src/configs/{name}" in command
    assert ("--pretrained" in command) == ("finetune" in name)
    assert re.search(r"\d+(\.\d+)? %", top1)
    assert "measured here" in top1
    total, *factors = (int(number) for number in re.findall(r"\d+", batch))
    settings = config(name)
    assert math.prod(factors or [total]) == total
    if factors:
        assert factors[1:] == [
            settings.data.batch_size,
            *([settings.train.accumulation_step] if settings.train.accumulation_step > 1 else []),
        ]


@pytest.mark.parametrize("name", list(SEEDS))
def test_seed_recipes_hold_the_seeds_values_and_no_others(name: str) -> None:
    seed = ROOT / "tests" / "data" / "seed_configs" / f"{SEEDS[name]}.yaml"
    assert config(name) == from_yaml_text(seed.read_text(encoding="utf-8"), "seed")


def differences(ours: Config, theirs: Config) -> Dict[str, Any]:
    there = theirs.flat()
    return {key: value for key, value in ours.flat().items() if value != there[key]}


def test_the_gpu_recipe_of_convnext_differs_where_its_file_in_the_zoo_does() -> None:
    assert differences(config("convnext_tiny_gpu.yaml"), config("convnext_tiny.yaml")) == {
        "data_url": "../data/imagenet",
        "batch_size": 224,
        "base_lr": 0.002,
        "min_lr": 6e-7,
        "drop_path_rate": 0.1,
        "device_target": "GPU",
    } | ({} if config("convnext_tiny.yaml").model.nonlinearity else {"nonlinearity": None})


@pytest.mark.parametrize("seed", list(OFFICIAL))
def test_every_seed_recipe_has_an_official_one_for_the_same_network(seed: str) -> None:
    official = config(OFFICIAL[seed])
    assert official.model.arch == config(seed).model.arch
    assert OFFICIAL[seed] == f"{official.model.arch}_official.yaml"
    assert official.data.num_parallel_workers == 16


# The authors' learning rate at the recipe's global batch, weight decay, epochs with cooldown.
AUTHORS = {
    "convmixer_1536_20_official.yaml": (0.01, 2e-5, 150),
    "convnext_tiny_official.yaml": (4e-3, 0.05, 300),
    "cct_14_7x2_224_official.yaml": (5e-4, 0.05, 310),
    "deit_small_patch16_224_official.yaml": (1e-3, 0.05, 300),
    "pcpvt_small_v0_official.yaml": (1.25e-3, 0.05, 300),
    "convnext_base_in22k_ft_in1k_384_finetune.yaml": (5e-5, 1e-8, 30),
    "convnext_base_384_in1k_finetune.yaml": (5e-5, 1e-8, 30),
    "deit_base_patch16_384_finetune.yaml": (5e-6, 1e-8, 30),
    "cct_14_7x2_384_finetune.yaml": (1e-5, 0.0, 40),
    "cct_7_3x1_32_cifar10.yaml": (5.5e-4, 0.06, 310),
    "cct_7_3x1_32_cifar100.yaml": (6e-4, 0.06, 310),
    "cct_7_3x1_32_sine_cifar10.yaml": (5e-4, 0.05, 5010),
    "cct_7_3x1_32_sine_cifar100.yaml": (5e-4, 0.05, 5010),
}


@pytest.mark.parametrize("name", list(AUTHORS))
def test_the_authors_numbers(name: str) -> None:
    from src.optim.schedulers import peak_lr

    optim, train = config(name).optim, config(name).train
    batch = re.search(r"Global batch: (\d+)", header(name))
    assert batch
    peak, weight_decay, epochs = AUTHORS[name]
    assert peak_lr(optim, int(batch[1])) == pytest.approx(peak)
    assert (optim.weight_decay, train.epochs + optim.cooldown_epochs) == (weight_decay, epochs)


def test_every_recipe_is_known_to_these_tests() -> None:
    digits = {"cct_2_3x2_32_digits.yaml"}
    assert set(RECIPES) >= {*SEEDS, *AUTHORS, "convnext_tiny_gpu.yaml"} | digits


@pytest.mark.parametrize("page", ["docs/recipes.md", "docs/zh/recipes.md"])
def test_the_pages_list_every_recipe(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in RECIPES if f"| `{name}` |" not in text] == []
