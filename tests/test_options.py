"""Options of every program: each has a meaning, none may be shortened; what a wrong one says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Dict

import pytest
from program_options import Program, option_tables
from remedies import programs

from src.args import Config, EvalRun, ExportRun, PredictRun, PreprocessRun, parse_args
from src.errors import UserError
from src.runtime.entry import run_entry_point

ROOT = Path(__file__).resolve().parent.parent
SERVING_RUNS = (EvalRun, ExportRun, PredictRun, PreprocessRun)
# Each is refused where networks are trained.
TRAINING_RULES = {
    "mixing takes pairs": "mix_up: 0.8\nbatch_size: 3",
    "a warmup longer than the run": "warmup_length: 20\nepochs: 5",
    "averages that are not there": "best_by: ema",
    "cycles": "lr_scheduler: step_lr\nlr_cycles: 2",
    "milestones": "milestones: [3, 2]",
    "a teacher": "distillation_type: soft",
}


@pytest.fixture(scope="module")
def tables() -> Dict[str, Program]:
    return option_tables(programs())


def test_every_option_of_every_program_has_a_meaning(tables: Dict[str, Program]) -> None:
    for name, program in tables.items():
        for action in program.actions:
            if action.help is not argparse.SUPPRESS and action.dest != "command":
                assert len(action.help or "") > 3, f"{name}: {action.option_strings or action.dest}"


def test_no_program_takes_a_shortened_option(tables: Dict[str, Program]) -> None:
    parsers = [parser for program in tables.values() for parser in program.parsers]
    assert len(parsers) > 20
    assert [parser.prog for parser in parsers if parser.allow_abbrev] == []


@pytest.mark.parametrize("text", TRAINING_RULES.values(), ids=TRAINING_RULES)
def test_rules_of_training_bind_what_trains_only(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(SystemExit):
        parse_args(["--config", str(recipe)], Config)
    assert f"{recipe}:" in capsys.readouterr().err
    for run in SERVING_RUNS:
        assert parse_args(["--config", str(recipe)], run).TRAINS is False


def test_predict_takes_any_batch_beside_a_recipe_that_mixes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    import predict

    recipe = str(ROOT / "src" / "configs" / "cct_14_7x2_224_official.yaml")
    words = ["--config", recipe, "--batch_size", "3", "--input", str(tmp_path / "none")]
    assert predict.main([*words, "--pretrained", "a.ckpt"]) == 2
    assert "input " in capsys.readouterr().err


def test_a_late_error_has_the_line_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 1\narch: cct_2_3x2\n")

    def work(config: Config) -> None:
        from src.models.registry import default_image_size

        default_image_size(config.model.arch)

    assert run_entry_point(work, ["--config", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {recipe}:2: arch 'cct_2_3x2': unknown architecture; did you")
    assert run_entry_point(work, ["--arch", "cct_2_3x2"]) == 2
    assert capsys.readouterr().err.startswith("error: arch 'cct_2_3x2': unknown")
    with pytest.raises(UserError):
        run_entry_point(work, ["--arch", "cct_2_3x2", "--debug"])
