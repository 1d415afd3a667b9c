"""The configuration system: recipes, inheritance, command line, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
import yaml

from src.args import Config, DataConfig, from_yaml_text, parse_args, replace, to_yaml
from src.configs import parser, recipe_files
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SEED_FOLDER = Path(__file__).parent / "data" / "seed_configs"
SEEDS = ["cct", "convmixer", "convnext", "deit", "twins"]
KEYS = list(Config().flat())


def write(folder: Path, text: str, name: str = "recipe.yaml") -> str:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return str(path)


def load(folder: Path, text: str, *arguments: str) -> Config:
    return parse_args(["--config", write(folder, text), *arguments])


def error_line(capsys: pytest.CaptureFixture[str], arguments: List[str]) -> str:
    """The one line that `parse_args` leaves on stderr when it refuses `arguments`."""
    with pytest.raises(SystemExit) as stopped:
        parse_args(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err[len("error: ") : -1]


# --- recipes of the model zoo -------------------------------------------------------------------


def seed_text(name: str) -> str:
    return (SEED_FOLDER / f"{name}.yaml").read_bytes().decode("utf-8")


def oracle(name: str) -> Dict[str, Any]:
    """What PyYAML reads; it refuses the tabs before comments, which the YAML standard allows."""
    values = yaml.safe_load(seed_text(name).expandtabs())
    defaults = Config().flat()
    for key, value in values.items():
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, list):
            values[key] = tuple(float(number) for number in value)
        elif isinstance(defaults[key], float) and (is_number or isinstance(value, str)):
            values[key] = float(value)
    return values


@pytest.mark.parametrize("name", SEEDS)
def test_seed_recipe_sets_its_values_and_no_other(name: str) -> None:
    path = str(SEED_FOLDER / f"{name}.yaml")
    config, expected = parse_args(["--config", path]), oracle(name)
    assert len(expected) >= 33
    values, defaults = config.flat(), Config().flat()
    assert {key: values[key] for key in expected} == expected
    assert [type(values[key]) for key in expected] == [type(v) for v in expected.values()]
    changed = {key for key in KEYS if values[key] != defaults[key]}
    assert changed == {key for key in expected if expected[key] != defaults[key]}


@pytest.mark.parametrize("name", SEEDS)
def test_origins_name_the_line(name: str) -> None:
    path = str(SEED_FOLDER / f"{name}.yaml")
    lines = seed_text(name).split("\n")
    expected = dict.fromkeys(KEYS, "default")
    for number, line in enumerate(lines, start=1):
        match = re.match(r" *([a-z0-9_]+):", line)
        if match:
            expected[match[1]] = f"{path}:{number}"
    assert parse_args(["--config", path]).origins == expected


def test_seed_recipes_are_kept_as_published() -> None:
    assert "data_url: ../data/imagenet\t\t" in seed_text("twins")
    for name in SEEDS:
        assert seed_text(name).startswith("    # Architecture")


# --- the dataclasses ----------------------------------------------------------------------------


def test_keys_are_unique_over_sections() -> None:
    names = [
        field.name
        for section in dataclasses.fields(Config)
        if section.name != "origins"
        for field in dataclasses.fields(getattr(Config(), section.name))
    ]
    assert len(names) == len(set(names))
    assert names == KEYS
    assert not {"base", "config", "print_config", "help"} & set(names)


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 1  # type: ignore[misc]


def test_origins_do_not_take_part_in_equality() -> None:
    assert parse_args(["--epochs", "300"]) == Config()
    assert Config().origins == dict.fromkeys(KEYS, "default")


def test_sections_check_themselves() -> None:
    with pytest.raises(UserError, match=r"batch_size: 0 is not allowed; allowed: \[1, 65536\]"):
        DataConfig(batch_size=0)
    with pytest.raises(UserError, match=r"batch_size: abc is not allowed; allowed: an integer"):
        DataConfig(batch_size="abc")  # type: ignore[arg-type]


def test_a_field_that_is_not_declared_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Loose(parser.Section):
        side: int = 3

    with pytest.raises(TypeError, match=r"Loose.side: not declared by key\(\)"):
        Loose()


def test_replace() -> None:
    config = parse_args(["--seed", "7"])
    changed = replace(config, epochs=3, scale=[0.5, 1], model_args={"depths": (1, 2)})
    assert changed.train.epochs == 3
    assert changed.data.scale == (0.5, 1.0)
    assert changed.model.model_args == {"depths": [1, 2]}
    assert changed.origins["epochs"] == "program"
    assert changed.origins["seed"] == "command line"
    assert config.train.epochs == 300
    with pytest.raises(UserError, match=r"epoch: unknown key.*'epochs'"):
        replace(config, epoch=3)
    with pytest.raises(UserError, match="program: epochs: -1 is not allowed"):
        replace(config, epochs=-1)


def documented_intervals() -> List[Tuple[str, str]]:
    pattern = r"(?:each )?(>=? \S+|[\[(]\S+, \S+[\])])"
    return [
        (key, match[1])
        for key, declared in parser.declared_keys(Config).items()
        for match in [re.fullmatch(pattern, part.strip()) for part in declared.text().split(";")]
        if match
    ]


def probes(interval: str, step: float) -> Tuple[List[float], List[float]]:
    """Numbers just inside and just outside an interval, read independently of the code."""
    inside, outside = [], []
    numbers = [float(n) for n in re.findall(r"[0-9.]+", interval)]
    bounds = list(zip(numbers, [1, -1], [interval[0] in "[" or ">=" in interval, "]" in interval]))
    for bound, inwards, is_closed in bounds:
        (inside if is_closed else outside).append(bound)
        inside.append(bound + inwards * step)
        outside.append(bound - inwards * step)
    return inside, outside


# Two numbers in order: what is tried stands beside one of these.
PAIRS = {"scale": (0.08, 1.0), "ratio": (0.75, 1.5), "cutmix_minmax": (0.0, 1.0)}


def value_with(key: str, number: float) -> Any:
    """A value of the key's type that holds the number."""
    default = Config().flat()[key]
    if key in PAIRS:
        low, high = PAIRS[key]
        return [number, high] if number < high else [low, number]
    if isinstance(default, tuple):
        return [number] * (len(default) or 3)
    return number


@pytest.mark.parametrize(("key", "interval"), documented_intervals())
def test_documented_interval_is_checked(key: str, interval: str) -> None:
    integers = (int, Optional[int], Optional[Tuple[int, int, int]])
    is_integer = parser.keys_of(Config)[key] in integers
    inside, outside = probes(interval, 1 if is_integer else 1e-6)
    as_number = int if is_integer else float
    for number in inside:
        replace(Config(), **{key: value_with(key, as_number(number))})
    for number in outside:
        with pytest.raises(UserError, match=re.escape(interval)):
            replace(Config(), **{key: value_with(key, as_number(number))})


def test_enough_intervals_are_documented() -> None:
    assert len(documented_intervals()) >= 54


@pytest.mark.parametrize("key", PAIRS)
def test_documented_order_is_checked(key: str) -> None:
    declared = parser.declared_keys(Config)[key].text()
    (order,) = re.findall("low <=? high", declared)
    with pytest.raises(UserError, match=order):
        replace(Config(), **{key: [0.9, 0.8]})
    if "=" in order:
        replace(Config(), **{key: [0.9, 0.9]})
    else:
        with pytest.raises(UserError, match=order):
            replace(Config(), **{key: [0.9, 0.9]})


CHOICES = {
    "nonlinearity": ["GELU", "ReLU", None],
    "set": ["ImageNet", "Digits"],
    "interpolation": ["bilinear", "bicubic", "random"],
    "re_mode": ["const", "rand", "pixel"],
    "mixup_mode": ["batch", "pair", "elem"],
    "optimizer": ["adamw", "adamweightdecay", "sgd", "momentum", "lamb", "lion"],
    "lr_scheduler": [
        *["cosine_lr", "linear_lr", "step_lr", "multistep_lr", "exponential_lr"],
        *["constant_lr", "one_cycle_lr"],
    ],
    "warmup_mode": ["replace", "prefix", "shift"],
    "clip_mode": ["norm", "value", "adaptive"],
    "criterion": ["cross_entropy", "bce"],
    "amp_level": ["O0", "O1", "O2", "O3"],
    "device_target": ["Ascend", "GPU", "CPU"],
    "mode": ["graph", "pynative"],
}


def test_documented_choices_are_those_that_are_checked() -> None:
    for key, declared in parser.declared_keys(Config).items():
        for choice in declared.choices:
            assert re.search(rf"\b{re.escape(str(choice))}\b", declared.text()), key
        assert set(CHOICES.get(key, ())) <= {*declared.choices, None}, key
        if declared.choices:
            with pytest.raises(UserError, match=", ".join(map(str, declared.choices))):
                replace(Config(), **{key: -1 if key == "in_chans" else "nonsense"})


@pytest.mark.parametrize("key", CHOICES)
def test_choices(key: str) -> None:
    for choice in CHOICES[key]:
        assert replace(Config(), **{key: choice}).flat()[key] == choice
    wrong = str(CHOICES[key][0]).swapcase()
    with pytest.raises(UserError, match=f"did you mean '{CHOICES[key][0]}'"):
        replace(Config(), **{key: wrong})


# --- spellings of values ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("base_lr: 1e-4", "base_lr", 1e-4),
        ("base_lr: 1.e-3", "base_lr", 1e-3),
        ("base_lr: 1E3", "base_lr", 1000.0),
        ("base_lr: .5", "base_lr", 0.5),
        ("base_lr: 5.", "base_lr", 5.0),
        ("base_lr: +2", "base_lr", 2.0),
        ("base_lr: 1", "base_lr", 1.0),
        ("clip_global_norm_value: 1", "clip_global_norm_value", 1.0),
        ("clip_global_norm_value: ~", "clip_global_norm_value", None),
        ("drop_path_rate:", "drop_path_rate", None),
        ("auto_augment: null", "auto_augment", None),
        ("epochs: 100", "epochs", 100),
        ("epochs:\t100\t# tabs\n\t# more\n\t\n", "epochs", 100),
        ("﻿epochs: 100\r\n", "epochs", 100),
        ("---\n{epochs: 100}", "epochs", 100),
        ("seed: &n 5\nepochs: *n", "epochs", 5),
        ("with_ema: yes", "with_ema", True),
        ("with_ema: ON", "with_ema", True),
        ("keep_bn_fp32: off", "keep_bn_fp32", False),
        ("cpu_kernels: off", "cpu_kernels", "off"),
        ('cpu_kernels: "off"', "cpu_kernels", "off"),
        ("keep_bn_fp32: False", "keep_bn_fp32", False),
        ("scale: [1e-1, 1]", "scale", (0.1, 1.0)),
        ("scale:\n- 0.5\n- .75", "scale", (0.5, 0.75)),
        ("arch: '123'", "arch", "123"),
        ('data_url: "null"', "data_url", "null"),
        ("train_url: 2024-01-31", "train_url", "2024-01-31"),
        ("train_url: obs://bucket/a b", "train_url", "obs://bucket/a b"),
        ("data_url: ./数据", "data_url", "./数据"),
        ("amp_level: O0", "amp_level", "O0"),
        (
            "model_args: {a: 1e-4, b: [1, 2.5, null], c: x, d: no}",
            "model_args",
            {"a": 1e-4, "b": [1, 2.5, None], "c": "x", "d": False},
        ),
    ],
)
def test_spelling(tmp_path: Path, text: str, key: str, expected: Any) -> None:
    value = load(tmp_path, text).flat()[key]
    assert value == expected
    assert type(value) is type(expected)


# --- mistakes in files --------------------------------------------------------------------------

# id: (text, line or None where none applies, what the message must contain)
MALFORMED: Dict[str, Tuple[str, Optional[int], List[str]]] = {
    "unknown key": ("epochs: 1\nbase_lrr: 0.1", 2, ["base_lrr", "0.1", "'base_lr'"]),
    "unknown key, case": ("Epochs: 1", 1, ["Epochs", "'epochs'"]),
    "unknown key, dash": ("base-lr: 1", 1, ["base-lr", "'base_lr'"]),
    "short name of the command line": ("lr: 1", 1, ["lr", "'base_lr'"]),
    "other name of the command line": ("output_dir: x", 1, ["output_dir", "'train_url'"]),
    "option that is no key": ("print_config: true", 1, ["print_config", "; --help lists"]),
    "unknown key, unlike all": ("数: 1", 1, ["数", "; --help lists"]),
    "unknown key, long": ("k" * 900 + ": 1", 1, ["kkk...", "; --help lists"]),
    "unknown key, long value": ("nope: " + "v" * 900, 1, ["nope", "vvv..."]),
    "duplicate key": ("epochs: 1\nseed: 2\nepochs: 3", 3, ["epochs", "3", "line 1"]),
    "duplicate key, quoted": ('epochs: 1\n"epochs": 2', 2, ["epochs", "line 1"]),
    "duplicate key, same value": ("epochs: 1\nepochs: 1", 2, ["epochs", "duplicate"]),
    "duplicate key in model_args": ("model_args:\n  a: 1\n  a: 2", 3, ["model_args", "a", "2"]),
    "duplicate base": ("base: x\nbase: y", 2, ["base", "y"]),
    "empty file": ("", 1, ["empty"]),
    "only comments": ("# nothing\n\n", 1, ["empty"]),
    "empty document": ("---\n...\n", None, []),
    "top level list": ("- epochs: 1", 1, ["list"]),
    "top level string": ("\nepochs", 2, ["one value"]),
    "top level number": ("5", 1, ["one value"]),
    "syntax: bracket": ("scale: [0.1, 1\nepochs: 1", None, ["invalid YAML"]),
    "syntax: quote": ('arch: "x\nepochs: 1', None, ["invalid YAML"]),
    "syntax: two colons": ("epochs: 1\nseed: 2: 3", 2, ["invalid YAML"]),
    "syntax: indentation": ("epochs: 1\n  seed: 2", 2, ["invalid YAML"]),
    "syntax: reserved character": ("arch: @x", 1, ["'@'"]),
    "syntax: undefined alias": ("epochs: 1\nseed: *x", 2, ["'x'"]),
    "syntax: no colon": ("epochs: 1\nseed\n", None, ["invalid YAML"]),
    "syntax: escape": ('arch: "\\UFFFFFFFF"', None, ["invalid YAML"]),
    "syntax: tab indents": ("model_args:\n\ta: 1", 2, ["tab", "spaces"]),
    "syntax: version": ("%YAML 9.0\n---\nepochs: 1", 1, ["version"]),
    "two documents": ("epochs: 1\n---\nepochs: 2", 2, ["document"]),
    "control character": ("epochs: 1\narch: a\x07b", 2, ["\\x07"]),
    "NUL": ("epochs: 1\n\x00", 2, ["\\x00"]),
    "not UTF-8": ("epochs: 1\narch: \udcff\udcfe", 2, ["UTF-8"]),
    "UTF-16": ("\udcff\udcfee\x00p\x00", 1, ["UTF-8"]),
    "huge": ("#" * 70000, None, ["bytes"]),
    "deep nesting": ("scale: " + "[" * 3000, 1, ["nested"]),
    "number as key": ("1: 2", 1, ["1", "key"]),
    "bool as key": ("epochs: 1\non: 2", 2, ["key"]),
    "null as key": ("~: 2", 1, ["null", "key"]),
    "list as key": ("? [epochs]\n: 1", 1, ["key", "list"]),
    "mapping as key": ("{epochs: 1}: 2", 1, ["key", "mapping"]),
    "merge key": ("<<: {epochs: 1}", 1, ["<<", "base:"]),
    "merge key in model_args": ("model_args: {<<: {a: 1}}", 1, ["<<"]),
    "python object": ("arch: !!python/object/apply:os.getcwd []", 1, ["arch", "!!python/obj"]),
    "python name": ("epochs: 1\narch: !!python/name:os.getcwd", 2, ["arch", "!!python/name"]),
    "standard tag": ("epochs: !!int 5", 1, ["epochs", "!!int"]),
    "own tag": ("epochs: !x 5", 1, ["epochs", "!x"]),
    "tag of the whole": ("!!map {epochs: 5}", 1, ["!!map"]),
    "int: word": ("epochs: many", 1, ["epochs", "many", "integer"]),
    "int: fraction": ("epochs: 2.5", 1, ["epochs", "2.5", "integer"]),
    "int: point": ("epochs: 2.", 1, ["epochs", "2.", "integer"]),
    "int: exponent": ("epochs: 1e2", 1, ["epochs", "1e2", "integer"]),
    "int: quoted": ("epochs: '5'", 1, ["epochs", "5", "integer"]),
    "int: bool": ("epochs: true", 1, ["epochs", "true", "integer"]),
    "int: octal": ("epochs: 0123", 1, ["epochs", "0123", "integer"]),
    "int: leading zero": ("epochs: 08", 1, ["epochs", "08", "integer"]),
    "int: hexadecimal": ("epochs: 0x10", 1, ["epochs", "0x10", "integer"]),
    "int: binary": ("epochs: 0b10", 1, ["epochs", "0b10", "integer"]),
    "int: underscore": ("epochs: 1_000", 1, ["epochs", "1_000", "integer"]),
    "int: base 60": ("epochs: 12:30", 1, ["epochs", "12:30", "integer"]),
    "int: null": ("epochs: null", 1, ["epochs", "null", "integer"]),
    "int: nothing": ("seed: 1\nepochs:", 2, ["epochs", "null", "integer"]),
    "int: list": ("epochs: [1]", 1, ["epochs", "[1]", "integer"]),
    "int: mapping": ("epochs: {a: 1}", 1, ["epochs", "{a: 1}", "integer"]),
    "int: 65 bits": ("seed: 9223372036854775808", 1, ["seed", "integer"]),
    "int: 5000 digits": ("seed: " + "9" * 5000, 1, ["seed", "999...", "integer"]),
    "int: date": ("epochs: 2024-01-31", 1, ["epochs", "2024-01-31"]),
    "float: word": ("base_lr: fast", 1, ["base_lr", "fast", "number"]),
    "float: nan": ("base_lr: .nan", 1, ["base_lr", ".nan", "number"]),
    "float: inf": ("base_lr: .inf", 1, ["base_lr", ".inf", "number"]),
    "float: minus inf": ("min_lr: -.INF", 1, ["min_lr", "-.INF", "number"]),
    "float: overflow": ("base_lr: 1e400", 1, ["base_lr", "1e400", "number"]),
    "float: quoted": ('base_lr: "1e-4"', 1, ["base_lr", "1e-4", "number"]),
    "float: bool": ("base_lr: yes", 1, ["base_lr", "yes", "number"]),
    "float: base 60": ("base_lr: 1:30.5", 1, ["base_lr", "1:30.5"]),
    "float: underscore": ("base_lr: 1_0.5", 1, ["base_lr", "1_0.5"]),
    "float: list": ("epochs: 1\nbase_lr:\n- 1", 2, ["base_lr", "number"]),
    "float: python's nan": ("base_lr: nan", 1, ["base_lr", "nan", "number"]),
    "bool: number": ("with_ema: 1", 1, ["with_ema", "1", "true or false"]),
    "bool: quoted": ("with_ema: 'true'", 1, ["with_ema", "true or false"]),
    "bool: null": ("with_ema:", 1, ["with_ema", "null", "true or false"]),
    "bool: letter": ("with_ema: y", 1, ["with_ema", "y", "true or false"]),
    "string: number": ("arch: 5", 1, ["arch", "5", "string"]),
    "string: number for a path": ("data_url: 2024", 1, ["data_url", "2024", "quotes"]),
    "string: float": ("train_url: 1e5", 1, ["train_url", "1e5", "string"]),
    "string: bool": ("nonlinearity: off", 1, ["nonlinearity", "off", "string"]),
    "string: null": ("arch: null", 1, ["arch", "null", "string"]),
    "string: list": ("arch: [x]", 1, ["arch", "[x]", "string"]),
    "string: base 60": ("data_url: 12:30", 1, ["data_url", "12:30", "string"]),
    "string: leading zero": ("arch: 08", 1, ["arch", "08", "string"]),
    "string: empty": ("pretrained: ''", 1, ["pretrained", "''", "null"]),
    "string: two lines": ('arch: "a\\nb"', 1, ["arch", "a\\nb", "string"]),
    "string: block": ("epochs: 1\narch: |\n  a\n  b\n", 2, ["arch", "string"]),
    "tuple: scalar": ("scale: 0.5", 1, ["scale", "0.5", "list of 2"]),
    "tuple: short": ("scale: [0.5]", 1, ["scale", "[0.5]", "list of 2"]),
    "tuple: long": ("mean: [0, 0, 0, 0]", 1, ["mean", "1 or 3 numbers"]),
    "tuple: short std": ("std: [1, 1]", 1, ["std", "1 or 3 numbers"]),
    "tuple: string inside": ("scale: [a, 1]", 1, ["scale", "[a, 1]", "numbers"]),
    "tuple: null inside": ("beta: [0.9, null]", 1, ["beta", "numbers"]),
    "tuple: list inside": ("scale: [[0.1], 1]", 1, ["scale", "list"]),
    "tuple: any length, string inside": (
        "milestones: [1, x]",
        1,
        ["milestones", "list of numbers"],
    ),
    "tuple: any length, scalar": ("milestones: 30", 1, ["milestones", "30", "list of numbers"]),
    "tuple: any length, null": ("milestones:", 1, ["milestones", "null", "list of numbers"]),
    "tuple: null": ("scale: null", 1, ["scale", "null", "list of 2"]),
    "tuple: own alias": ("scale: &a [*a, *a]", 1, ["scale", "list"]),
    "mapping: scalar": ("model_args: 5", 1, ["model_args", "5", "mapping"]),
    "mapping: list": ("model_args: [1]", 1, ["model_args", "[1]", "mapping"]),
    "mapping: null": ("model_args:", 1, ["model_args", "null", "mapping"]),
    "mapping: nested": ("model_args: {a: {b: 1}}", 1, ["model_args", "a", "mapping"]),
    "mapping: list in list": ("model_args:\n  a: [[1]]", 2, ["model_args", "a", "list"]),
    "mapping: number as key": ("model_args: {1: 2}", 1, ["model_args", "1", "key"]),
    "mapping: infinite": ("model_args: {a: .inf}", 1, ["model_args", "'a'", ".inf"]),
    "mapping: octal": ("model_args: {a: [010]}", 1, ["model_args", "'a'", "010"]),
    "mapping: own alias": ("model_args: &a {x: *a}", 1, ["model_args", "x"]),
    "range: epochs": ("epochs: -1", 1, ["epochs", "-1", "[0, 100000]"]),
    "range: base_lr": ("\n\nbase_lr: -1e-5", 3, ["base_lr", "-1e-5", ">= 0"]),
    "range: drop_path_rate": ("drop_path_rate: 1", 1, ["drop_path_rate", "1", "[0, 1)"]),
    "range: clip": ("clip_global_norm_value: 0", 1, ["clip_global_norm_value", "> 0"]),
    "range: beta": ("beta: [0.9, 1.0]", 1, ["beta", "each [0, 1)"]),
    "range: std": ("std: [0, 1, 1]", 1, ["std", "> 0"]),
    "range: scale is 0": ("scale: [0, 1]", 1, ["scale", "(0, 1]"]),
    "range: scale above 1": ("scale: [0.1, 1.1]", 1, ["scale", "(0, 1]"]),
    "range: scale order": ("scale: [1.0, 0.5]", 1, ["scale", "low <= high"]),
    "range: ratio order": ("ratio: [2, 1]", 1, ["ratio", "low <= high"]),
    "range: ratio is 0": ("ratio: [0, 1]", 1, ["ratio", "> 0"]),
    "choice: device": ("device_target: ascend", 1, ["ascend", "did you mean 'Ascend'", "GPU"]),
    "choice: dataset": ("set: imagenet", 1, ["set", "did you mean 'ImageNet'", "Digits"]),
    "choice: amp": ("amp_level: O4", 1, ["amp_level", "O4", "O0, O1, O2, O3"]),
    "choice: amp is zero": ("amp_level: 0", 1, ["amp_level", "0", "string"]),
    "choice: optimizer": ("optimizer: adam", 1, ["optimizer", "did you mean 'adamw'"]),
    "choice: far off": ("mode: zzz", 1, ["mode", "graph, pynative"]),
    "together: warmup": ("warmup_length: 20\nepochs: 5", 1, ["warmup_length", "20", "5"]),
    "together: epochs": ("epochs: 5\nwarmup_length: 20", 2, ["warmup_length", "20", "5"]),
    "together: odd batch": ("batch_size: 3\nmix_up: 0.8", 1, ["batch_size", "3", "even"]),
    "together: odd batch, cutmix": ("cutmix: 1\nbatch_size: 7", 2, ["batch_size", "7", "even"]),
    "base: number": ("base: 5", 1, ["base", "5", "path"]),
    "base: null": ("epochs: 1\nbase:", 2, ["base", "null", "path"]),
    "base: list": ("base: [a.yaml]", 1, ["base", "[a.yaml]", "path"]),
    "base: empty": ("base: ''", 1, ["base", "''", "path"]),
    "base: missing": ("epochs: 1\nbase: none.yaml", 2, ["base", "none.yaml", "No such file"]),
    "base: folder": ("base: .", 1, ["base", "a folder"]),
    "base: device": ("base: /dev/zero", 1, ["base", "a device", "save it to a file"]),
    "base: NUL": ('base: "a\\0b"', 1, ["base", "a\\0b"]),
    "base: itself": ("base: recipe.yaml", 1, ["circle", "recipe.yaml -> "]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    text, line, contents = MALFORMED[name]
    path = write(tmp_path, text)
    message = error_line(capsys, ["--config", path])
    assert message.startswith(f"{path}:" if line is None else f"{path}:{line}: ")
    rest = message[len(path) :]
    for content in contents:
        assert content in rest
    assert len(rest) < 300 + 2 * len(path)


def test_there_are_enough_malformed_files() -> None:
    assert len(MALFORMED) >= 60


def test_unreadable_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "no\nsuch.yaml")
    assert "such.yaml" in error_line(capsys, ["--config", missing])
    assert "a folder, no file; name one in it" in error_line(capsys, ["--config", str(tmp_path)])
    assert "null byte" in error_line(capsys, ["--config", "a\0b"])

    # Not by chmod: it does not stop the superuser, as whom containers run.
    def refuse(path: str, most_bytes: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(recipe_files, "read_regular", refuse)
    message = error_line(capsys, ["--config", "secret.yaml"])
    assert message == "command line: --config: secret.yaml cannot be read: Permission denied"


# --- inheritance --------------------------------------------------------------------------------


def test_base_chain_with_paths_relative_to_the_naming_file(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    root = write(tmp_path, "epochs: 10\nseed: 10\nbase_lr: 1e-1\nmodel_args: {a: 1}", "root.yaml")
    middle = write(tmp_path / "family", "base: ../root.yaml\nepochs: 20\nseed: 20", "middle.yaml")
    leaf = write(tmp_path, "epochs: 30\nbase: family/middle.yaml\nmodel_args: {b: 2}", "leaf.yaml")
    config = parse_args(["--config", leaf, "--weight_decay", "0"])
    assert (config.train.epochs, config.train.seed, config.optim.base_lr) == (30, 20, 0.1)
    assert config.model.model_args == {"b": 2}
    assert config.origins["epochs"] == f"{leaf}:1"
    assert config.origins["seed"] == f"{middle}:3"
    assert config.origins["base_lr"] == f"{root}:3"
    assert config.origins["weight_decay"] == "command line"
    assert "base" not in config.flat()


def test_error_in_a_base_names_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write(tmp_path, "seed: 1\nepochs: -1", "base.yaml")
    leaf = write(tmp_path, "base: base.yaml")
    assert error_line(capsys, ["--config", leaf]).startswith(f"{base}:2: epochs: -1")
    write(tmp_path, "epoch: 1", "base.yaml")
    assert error_line(capsys, ["--config", leaf]).startswith(f"{base}:1: epoch: unknown key")


def test_cycle_shows_the_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path, "base: b.yaml", "a.yaml")
    b = write(tmp_path, "epochs: 1\nbase: c.yaml", "b.yaml")
    c = write(tmp_path, "base: ../" + tmp_path.name + "/b.yaml", "c.yaml")
    message = error_line(capsys, ["--config", a])
    assert message == f"{c}:1: base: files that inherit in a circle: {a} -> {b} -> {c} -> {b}"


def test_cycle_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "base: link.yaml")
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    assert error_line(capsys, ["--config", path]).endswith(f"circle: {path} -> {link}")


# --- command line -------------------------------------------------------------------------------


def test_command_line_over_file_over_default(tmp_path: Path) -> None:
    config = load(tmp_path, "epochs: 5\nseed: 6\n", "--seed", "7")
    assert (config.train.epochs, config.train.seed, config.train.log_interval) == (5, 7, 10)
    assert config.origins["seed"] == "command line"
    assert config.origins["epochs"].endswith("recipe.yaml:1")


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--base_lr", "1e-4"], "base_lr", 1e-4),
        (["--base_lr=1e-4"], "base_lr", 1e-4),
        (["--lr", "0.25"], "base_lr", 0.25),
        (["--lr", "1", "--base_lr", "2"], "base_lr", 2.0),
        (["--base_lr", "1", "--lr", "2"], "base_lr", 2.0),
        (["--wd", "0"], "weight_decay", 0.0),
        (["-a", "convnext_tiny"], "arch", "convnext_tiny"),
        (["-j", "3"], "num_parallel_workers", 3),
        (["-j3"], "num_parallel_workers", 3),
        (["-b", "64"], "batch_size", 64),
        (["-b=64"], "batch_size", 64),
        (["--output_dir", "out"], "train_url", "out"),
        (["--scale", "0.5", "1.0"], "scale", (0.5, 1.0)),
        (["--scale", "[0.5, 1]"], "scale", (0.5, 1.0)),
        (["--scale=[0.5, 1]"], "scale", (0.5, 1.0)),
        (["--milestones", "30", "60.5"], "milestones", (30.0, 60.5)),
        (["--milestones", "[30]"], "milestones", (30.0,)),
        (["--milestones", "[]"], "milestones", ()),
        (["--mean", "-1", "-.5", "-1e-5"], "mean", (-1.0, -0.5, -1e-5)),
        (["--with_ema"], "with_ema", True),
        (["--with_ema", "true"], "with_ema", True),
        (["--with_ema", "false"], "with_ema", False),
        (["--keep_bn_fp32=no"], "keep_bn_fp32", False),
        (["--drop_path_rate", "null"], "drop_path_rate", None),
        (["--debug"], "debug", True),
        (["--model_args", "{n: 2, r: 1e-4}"], "model_args", {"n": 2, "r": 1e-4}),
        (["--data_url", "a #b: c"], "data_url", "a #b: c"),
        (["--data_url=-odd"], "data_url", "-odd"),
        (["--data_url", "'2024'"], "data_url", "2024"),
        (["--train_url", "*x"], "train_url", "*x"),
    ],
)
def test_option(arguments: List[str], key: str, expected: Any) -> None:
    config = parse_args(arguments)
    assert config.flat()[key] == expected
    changed = {key for key, origin in config.origins.items() if origin != "default"}
    assert changed == {key}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_an_option(key: str) -> None:
    value = parser.to_flow(Config().flat()[key])
    assert parse_args([f"--{key}", value]).origins[key] == "command line"


@pytest.mark.parametrize("option", ["--config", "--cct_config"])
def test_spellings_of_config(tmp_path: Path, option: str) -> None:
    assert parse_args([option, write(tmp_path, "epochs: 5")]).train.epochs == 5


def test_sys_argv_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "5"])
    assert parse_args().train.epochs == 5
    assert parse_args([]) == Config()


@pytest.mark.parametrize(
    ("arguments", "contents"),
    [
        (["--base_lr", "-1"], ["command line: --base_lr: -1 ", ">= 0"]),
        (["--lr=-1"], ["command line: --base_lr: -1 ", ">= 0"]),
        (["--min_lr", "-1e-5"], ["command line: --min_lr: -1e-5 ", ">= 0"]),
        (["--base_lr", "-.5"], ["command line: --base_lr: -.5 ", ">= 0"]),
        (["--base_lr", "-.inf"], ["command line: --base_lr: -.inf ", "number"]),
        (["--base_lr", "-inf"], ["command line: --base_lr: -inf ", "number"]),
        (["--epochs", "1e2"], ["command line: --epochs: 1e2 ", "integer"]),
        (["--epochs", "0123"], ["--epochs: 0123 ", "integer"]),
        (["--epochs", "1", "2"], ["--epochs: [1, 2] ", "integer"]),
        (["--epochs", "[1]"], ["--epochs: [1] ", "integer"]),
        (["--epochs"], ["--epochs", "needs a value"]),
        (["--epochs", "--seed", "1"], ["--epochs", "needs a value"]),
        (["--epochs", ""], ["--epochs", '""', "integer"]),
        (["--epochs="], ["--epochs", '""', "integer"]),
        (["--pretrained", ""], ["--pretrained", '""', "string"]),
        (["--arch", "5"], ["--arch: 5 ", "string"]),
        (["--with_ema", "1"], ["--with_ema: 1 ", "true or false"]),
        (["--with_ema", "true", "false"], ["--with_ema", "true or false"]),
        (["--scale", "0.5"], ["--scale: 0.5 ", "list of 2"]),
        (["--scale", "1", "0.5"], ["--scale", "low <= high"]),
        (["--scale", "[0.5"], ["--scale", "invalid YAML"]),
        (["--scale", "[[1], 1]"], ["--scale", "list"]),
        (["--model_args", "{a: 1, a: 2}"], ["--model_args", "duplicate"]),
        (["--model_args", "{a: !!python/name:os 1}"], ["--model_args", "tag"]),
        (["--model_args", "a"], ["--model_args: a ", "mapping"]),
        (["--device_target", "ascend"], ["--device_target", "did you mean 'Ascend'"]),
        (["--data_url", "a\nb"], ["--data_url", "a\\nb"]),
        (["--data_url", "x" * 999 + "\n"], ["--data_url", "xxx..."]),
        (["--base_l", "1"], ["--base_l: unknown option", "'--base_lr'"]),
        (["--epoch=1"], ["--epoch: unknown option", "'--epochs'"]),
        (["--base-lr", "1"], ["--base-lr: unknown option", "'--base_lr'"]),
        (["-lr", "1"], ["-lr: unknown option", "did you mean '--lr'"]),
        (["--nosuch"], ["--nosuch: unknown option; --help lists every option"]),
        (["--base", "x.yaml"], ["--base: unknown option"]),
        (["--no\nsuch"], ["--no\\nsuch: unknown option"]),
        (["--"], ["--: unknown option"]),
        (["-"], ["-: unknown option"]),
        (["recipe.yaml"], ["recipe.yaml: not an option"]),
        (["-5"], ["-5", "not an option"]),
        (["--config"], ["--config", "needs one file"]),
        (["--config", "a", "b"], ["--config", "needs one file", "[a, b]"]),
        (["--config", "none.yaml"], ["--config: none.yaml cannot be read: No such file"]),
        (["--config", ""], ["--config", "cannot be read"]),
        (["--print_config", "perhaps"], ["--print_config", "perhaps"]),
        (["--epochs", "5", "--warmup_length", "20"], ["--warmup_length: 20 ", "20 and 5"]),
        (["-b", "3", "--cutmix", "1"], ["--batch_size: 3 ", "even"]),
        (["--image_size", "32", "--crop_padding", "32"], ["--crop_padding: 32 ", "32 and 32"]),
    ],
)
def test_malformed_command_line(
    capsys: pytest.CaptureFixture[str], arguments: List[str], contents: List[str]
) -> None:
    message = error_line(capsys, arguments)
    assert message.startswith("command line: ")
    assert len(message) < 300
    for content in contents:
        assert content in message


def test_of_fields_that_do_not_fit_the_last_given_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "warmup_length: 20")
    message = error_line(capsys, ["--config", path, "--epochs", "5"])
    assert message.startswith("command line: --epochs: 5 is not allowed")
    assert message.endswith("warmup_length <= epochs; these are 20 and 5")


def test_warmup_may_exceed_no_epochs() -> None:
    assert parse_args(["--epochs", "0", "--warmup_length", "5"]).optim.warmup_length == 5


def test_min_lr_may_exceed_base_lr() -> None:
    assert parse_args(["--base_lr", "0", "--min_lr", "1"]).optim.min_lr == 1.0


def test_debug_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epochs: -1 is not allowed"):
        parse_args(["--epochs", "-1", "--debug"])


# --- resolved configuration as YAML -------------------------------------------------------------

AWKWARD_STRINGS = [
    *["123", "1e-4", "-1", "0x1F", "0123", "1_0", "12:30", ".inf", ".5", "2024-01-31"],
    *["true", "No", "on", "null", "~", "y", "=", "<<", "-", "--- x", "?", "..."],
    *["a #b", "a: b", "a:", "#x", " x ", "[a]", "{a: 1}", "*a", "&a", "!a", "%a", "@a", "`a`"],
    *["it's", 'say "x"', "back\\slash", "obs://b/k?v=1,2", "数据", "é", "😀", "\u3000", "\x85"],
    *["\u2028", "\ufeff", "\udcff", "x" * 500, "a b " * 100],
]


@pytest.mark.parametrize("text", AWKWARD_STRINGS)
def test_round_trip_of_strings(text: str) -> None:
    config = replace(Config(), data_url=text, model_args={"a": text, "b": [text, 1]})
    for with_origins in (False, True):
        written = to_yaml(config, with_origins)
        assert from_yaml_text(written, "saved") == config
        assert yaml.safe_load(written)["data_url"] == text


@pytest.mark.parametrize(
    "values",
    [
        {"eps": 1e-08, "base_lr": 4 / 3, "min_lr": 5e-324, "weight_decay": 1.7e308},
        {"base_lr": 1e16, "min_lr": 1e22, "warmup_lr": 123456789.123},
        {"milestones": (), "lr_base_batch": 512},
        {"ratio": (1e-08, 4 / 3), "mean": (-0.0, -1e-30, 1.0)},
        {"drop_path_rate": None, "clip_global_norm_value": None, "auto_augment": None},
        {"model_args": {"a": [1, 2.5, None, True, "x: y", 1e-08], "b": [], "on": "", "7": 7}},
        {"model_args": {}, "with_ema": True, "seed": 2**63 - 1},
    ],
)
def test_round_trip_of_values(values: Dict[str, Any]) -> None:
    config = replace(Config(), **values)
    written = to_yaml(config, with_origins=True)
    assert from_yaml_text(written, "saved") == config
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in config.flat().items()}
    assert yaml.safe_load(written) == lists


@pytest.mark.parametrize("name", SEEDS)
def test_print_config(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments = ["--config", str(SEED_FOLDER / f"{name}.yaml"), "--base_lr", "1e-4"]
    with pytest.raises(SystemExit) as stopped:
        parse_args([*arguments, "--print_config"])
    assert stopped.value.code == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    config = parse_args(arguments)
    assert load(tmp_path, captured.out) == config
    lines = [line for line in captured.out.split("\n") if line]
    headings = [line for line in lines if line.startswith("# ")]
    assert [re.split("[ :]+", line)[1] for line in headings] == list(parser.section_types(Config))
    for line in set(lines) - set(headings):
        assert line.endswith(f"  # {config.origins[line.split(':')[0]]}")
    assert "base_lr: 0.0001  # command line" in lines


def test_print_config_on_an_ascii_terminal() -> None:
    result = run(["--data_url", "./数据 é", "--print_config"], PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert from_yaml_text(result.stdout, "printed").data.data_url == "./数据 é"


def test_origin_with_a_line_break_stays_a_comment(tmp_path: Path) -> None:
    config = parse_args(["--config", write(tmp_path, "epochs: 5", "a\nseed: 9 #.yaml")])
    assert from_yaml_text(to_yaml(config, with_origins=True), "saved") == config


def test_text_has_its_name_as_origin() -> None:
    assert from_yaml_text("\nepochs: 5", "last.ckpt").origins["epochs"] == "last.ckpt:2"
    with pytest.raises(UserError, match=r"^last.ckpt:2: epochs: -1 is not allowed"):
        from_yaml_text("\nepochs: -1", "last.ckpt")
    with pytest.raises(UserError, match=r"^last.ckpt:1: base: allowed in files only"):
        from_yaml_text("base: x.yaml", "last.ckpt")


# --- help, processes, imports -------------------------------------------------------------------


def test_help_lists_every_key_with_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_args(["-h"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for key, value in Config().flat().items():
        entry = re.search(rf"^  --{key}(,.*)?\n      (.+) \(default: (.+)\)$", text, re.MULTILINE)
        assert entry, key
        assert len(entry[2]) > 5
        assert entry[3] == parser.to_flow(value)
    assert "at most one per core" in text
    for option in ["--cct_config", "--print_config", "--lr", "--wd", "-a", "-b", "--output_dir"]:
        assert option in text


def run(arguments: List[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from src.args import parse_args; parse_args()", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--epochs", "x"], ["--config", "none.yaml"]])
def test_process_ends_with_one_line(arguments: List[str]) -> None:
    result = run(arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: command line: ")
    assert result.stderr.count("\n") == 1


def test_process_shows_the_traceback_with_debug() -> None:
    result = run(["--epochs", "x", "--debug"])
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_import_is_light_and_reads_nothing() -> None:
    code = (
        "import sys; sys.argv = ['x', '--nonsense']; import src.args;"
        "print([m for m in ('mindspore', 'numpy', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_no_key_of_data_or_update_is_free_to_change_within_a_run() -> None:
    apart = {"data_url", "num_parallel_workers", "python_multiprocessing", "max_bad_share"}
    # As data_url, these are where the images are; which they are is compared itself.
    apart |= {"train_list", "val_list"}
    # A larger image than allowed ends a run, which goes on once it is.
    apart.add("max_image_pixels")
    free = set(parser.keys_marked(Config, "free"))
    sections = parser.section_types(Config)
    assert free & set(parser.section_keys(sections["data"])) == apart
    assert not free & set(parser.section_keys(sections["optim"]))
    assert {"train_url", "resume", "log_interval", "debug"} <= free


def test_what_belongs_to_the_network_is_no_matter_of_training() -> None:
    network = set(parser.keys_marked(Config, "network"))
    assert {"arch", "num_classes", "image_size", "model_args"} <= network
    assert network <= set(parser.section_keys(parser.section_types(Config)["model"]))
    assert {"pretrained", "drop_path_rate"}.isdisjoint(network)
