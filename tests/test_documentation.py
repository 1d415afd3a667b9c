"""The documentation says what the code does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterable, List, Type

import pytest
import yaml
from markdown_pages import PAGES, ROOT, is_broken, links, read
from test_scripts import script

import predict
from src.args import Config, EvalRun, ExportRun, PreprocessRun, parse_args
from src.configs.parser import declared_keys, keys_of

READMES = ("README.md", "README_CN.md")
# Pages whose commands are executed, in this order. Chinese ones have the same (test_languages.py).
TRIED = ("README.md", "docs/commands.md", "docs/weights.md")
# Every program with a recipe: what it adds is a subclass.
RUNS = [Config, *Config.__subclasses__()]


def commands(name: str) -> List[str]:
    """Lines of the README's bash blocks, without comments."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:bash|shell)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [re.split(r"(?:^|\s)#", line)[0].strip() for line in joined.splitlines()]
    return [" ".join(line.split()) for line in lines if line]


def numbers(name: str) -> List[str]:
    """Every number of the text, in sorted order; thousands have commas in both languages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def code(name: str) -> List[str]:
    """What stands in backticks on its own: keys, files, scripts."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return sorted(re.findall(r"`([^`\n]+)`", text))


def test_the_configuration_pages_are_what_the_code_says() -> None:
    pages = script("make_configuration_page").pages()
    assert {ExportRun, EvalRun, PreprocessRun} < set(RUNS)
    assert list(pages) == ["configuration.md", "zh/configuration.md"]
    for name, text in pages.items():
        message = "run python scripts/make_configuration_page.py"
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, message
        for run in RUNS:
            assert all(f"| `{key}` |" in text for key in keys_of(run))


TABLES = {
    "make_configuration_page": "data.val_share",
    "make_model_pages": "cct.seq_pool",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_meaning_is_there_in_chinese(name: str) -> None:
    table = yaml.safe_load(script(name).MEANINGS.read_text(encoding="utf-8"))
    for place, texts in table.items():
        for english, chinese in texts.items():
            assert re.search("[\u4e00-\u9fff]", chinese), (place, english)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('  "', '  "Once ', "{place}: no Chinese of '"),  # the English has changed since
        ("{place}:", "else:", "{place}: no Chinese of '"),
        ("{place}:", "else: {{old: 旧}}\n{place}:", "else: the code does not say 'old'; remove it"),
        ("{place}:", "else:\n{place}:", "'else': expected lines of \"English\": Chinese"),
        ("{place}:", "else: {{0: 关闭}}\n{place}:", "'else': expected lines"),
        ("{place}:", "[{place}:", "restore the file"),
    ],
)
@pytest.mark.parametrize("name", TABLES)
def test_chinese_that_does_not_fit_the_english_is_refused(
    name: str,
    before: str,
    after: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, place = script(name), TABLES[name]
    head, found, rest = program.MEANINGS.read_text(encoding="utf-8").partition(f"{place}:\n")
    changed = (found + rest).replace(before.format(place=place), after.format(place=place), 1)
    assert changed != found + rest
    monkeypatch.setattr(program, "MEANINGS", tmp_path / "meanings.yaml")
    program.MEANINGS.write_text(head + changed, encoding="utf-8")
    for slow in ("variants", "recipes_by_arch"):
        monkeypatch.setattr(program, slow, lambda *given: "", raising=False)
    monkeypatch.setattr(program, "write_whole", lambda *given: pytest.fail("written"))
    assert program.main([]) == 2
    error = capsys.readouterr().err
    assert f"{program.MEANINGS}: " in error
    assert said.format(place=place) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_every_key_has_a_meaning_in_help_and_on_the_page(
    run: Type[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--help"], run)
    text = capsys.readouterr().out
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").replace("\\", "")
    for key, declared in declared_keys(run).items():
        in_help = re.search(
            rf"^  --{key}(?:, .+)?\n      (.+) \(default: .+\)$", text, re.MULTILINE
        )
        on_page = re.search(rf"^\| `{key}` \| `.+` \| (.+) \|$", page, re.MULTILINE)
        assert in_help, key
        assert on_page, key
        # Words of its own, before what is generated: allowed values say nothing of their sense.
        words = re.findall(r"[A-Za-z]{2,}", declared.meaning)
        assert set(words) - {*declared.choices, "null", "each", "or"}, key
        for said in (in_help[1], on_page[1]):
            assert said.startswith(declared.meaning), key
            assert all(note in said for note in declared.choices.values()), key
            assert (declared.range or "") in said, key
            assert (declared.special or "") in said, key


def test_help_of_predict_names_its_options_and_every_key() -> None:
    parser = predict.create_parser()
    text = parser.format_help()
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for action in parser._actions:
        assert len(action.help or "") > 8, action.dest
        assert action.dest == "help" or f"| `{action.option_strings[0]}` |" in page
    for key, declared in declared_keys(Config).items():
        assert re.search(
            rf"^  --{key}(, .+)?\n      {re.escape(declared.meaning)}", text, re.MULTILINE
        )


def test_both_readmes_have_the_same_commands() -> None:
    assert commands(READMES[0]) == commands(READMES[1])
    assert len(commands(READMES[0])) > 10


def test_both_readmes_have_the_same_keys_and_scripts() -> None:
    assert code(READMES[0]) == code(READMES[1])


def test_both_readmes_have_the_same_numbers() -> None:
    assert numbers(READMES[0]) == numbers(READMES[1])


def test_both_readmes_have_the_same_headings_in_the_zoos_order() -> None:
    text = (ROOT / "README_CN.md").read_text(encoding="utf-8")
    zoo = "目录 描述 数据集 特性 环境要求 脚本说明 训练和测试 导出过程 推理过程 性能".split()
    found = re.findall(r"^# (\S+)$", text, re.MULTILINE)
    assert [heading for heading in found if heading in zoo] == zoo
    levels = [
        [len(mark) for mark in re.findall(r"^(#+) ", (ROOT / name).read_text(), re.MULTILINE)]
        for name in READMES
    ]
    assert len(levels[0]) == len(levels[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page, read(page)) if is_broken(link)] == []


def test_keys_in_the_tables_of_migration_exist() -> None:
    known = {*keys_of(Config), "config", "print_config", "help"}
    text = read(ROOT / "docs" / "migrating.md").split("\n## Files of weights")[0]
    rows = re.findall(r"^\| .*? \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 50
    for row in rows:
        for key in re.findall(r"`([a-z]\w*)[:`]", row):
            assert key in known, key
        for key, value in re.findall(r"`([a-z]\w*): ([\w.]+)`", row):
            assert parse_args([f"--{key}", value, "--mix_up", "0.8"]).flat()[key] is not None


def test_the_walk_of_a_batch_enters_each_file_once() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    walk = text.split("## How one training batch goes through the code")[1].split("\n## ")[0]
    entered = re.findall(r"^\d+\. `(src/[\w/]+\.py)`", walk, re.MULTILINE)
    named = re.findall(r"`(src/[\w/]+\.py)`", walk)
    assert len(entered) > 15
    assert len(named) == len(set(named))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_layout_has_every_folder_of_the_package() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    layout = text.split("```text")[1].split("```")[0]
    for folder in {path.parent for path in (ROOT / "src").rglob("*.py")}:
        name = folder.relative_to(ROOT).as_posix()
        assert re.search(rf"^{name}/", layout, re.MULTILINE) or f"{folder.name}/:" in layout, name
    for name in re.findall(r"^(src/\S+)", layout, re.MULTILINE):
        assert (ROOT / name).exists(), name


PROGRAMS = {"train.py": Config, "eval.py": EvalRun, "export.py": ExportRun, "predict.py": Config}


def test_readmes_are_short() -> None:
    for name in READMES:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 250


@pytest.mark.parametrize(
    "command",
    [
        command
        for page in (*TRIED, "docs/tutorial.md")  # test_tutorial.py executes that
        for command in commands(page)
        if command.split()[1] in PROGRAMS
    ],
)
def test_options_of_documented_commands_are_known(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    program, *words = command.split()[1:]
    if program == "predict.py":
        words = predict.create_parser().parse_known_args(words)[1]
    if set(words) & {"--help", "--print_config"}:
        with pytest.raises(SystemExit) as stopped:
            parse_args(words, PROGRAMS[program])
        assert stopped.value.code == 0, capsys.readouterr().err
    else:
        assert parse_args([*words, "--debug"], PROGRAMS[program])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, with this interpreter as .venv/bin/python."""
    root = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((ROOT / name).read_bytes())
    (root / ".venv" / "bin").mkdir(parents=True)
    wrapper = root / ".venv" / "bin" / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    wrapper.chmod(0o755)
    return root


# A shallow network for two epochs, so that every command runs in seconds.
SHRUNK: Dict[str, str] = {
    "epochs: 20": "epochs: 2",
    "warmup_length: 2": "warmup_length: 1",
    "save_every: 10": "save_every: 1",
    "model_args: {attention_dropout: 0.0}": (
        "model_args: {attention_dropout: 0.0, num_layers: 1, n_conv_layers: 1}"
    ),
}


def prepare(root: Path) -> None:
    """Makes what the commands name beside what they make themselves."""
    recipe = root / "src" / "configs" / "cct_2_3x2_32_digits.yaml"
    text = recipe.read_text()
    for before, after in SHRUNK.items():
        assert before in text
        text = text.replace(before, after)
    recipe.write_text(text)
    from PIL import Image

    for split in ("train", "val"):
        for number, name in enumerate(("cats", "dogs")):
            folder = root / "my_folder" / split / name
            folder.mkdir(parents=True)
            for index in range(32 if split == "train" else 2):
                colour = (100 * number, 3 * index, 50)
                Image.new("RGB", (40, 30), colour).save(folder / f"{index}.jpg")
    timm = pytest.importorskip("timm")
    import torch

    torch.save(timm.create_model("deit_small_patch16_224").state_dict(), root / "X.pth")
    (root / "outputs").mkdir()
    device = {"device_id": "0", "device_ip": "192.168.100.101", "rank_id": "0"}
    server = {"server_id": "10.0.0.1", "device": [device], "host_nic_ip": "reserve"}
    table = {"version": "1.0", "server_count": "1", "server_list": [server], "status": "completed"}
    (root / "ranks.json").write_text(json.dumps(table))
    # The environment is this one and has everything: the quickstart need not install.
    stamp = "cat requirements*.txt | cksum >.venv/.installed-requirements.txt"
    subprocess.run(stamp, shell=True, cwd=root, check=True)


# What stands for the arguments of the scripts that start training on devices.
ARGUMENTS = {
    "[DEVICE_ID]": "0",
    "[CONFIG_PATH]": "src/configs/cct_2_3x2_32_digits.yaml",
    "[NUMBER_OF_CARDS|CARDS|RANK_TABLE_FILE]": "ranks.json",
    "[CUDA_VISIBLE_DEVICES]": "0,1",
    "[NPROC]": "2",
    "[CHECKPOINT_PATH]": "outputs/cct_2_3x2_32/best.ckpt",
}


def runnable(command: str) -> str:
    """The command as it is; where it needs a device, --dry_run; where it installs packages, -h."""
    if "run_infer_310.sh" in command:  # needs MindSpore Lite; tests/test_inference_chain.py runs it
        return "bash scripts/run_infer_310.sh -h"
    if "pip install" in command:
        return ".venv/bin/python -m pip install -h"
    if "eval.py --pretrained timm/" in command:  # needs the hub; tests/test_weights_origin.py
        return ".venv/bin/python eval.py -h"
    if command.startswith("bash scripts/run_") and "[" in command:
        for name, value in ARGUMENTS.items():
            command = command.replace(name, value)
        return f"{command} --dry_run"
    if command == "bash scripts/run_tests.sh":
        return f"{command} -h"
    if "--pretrained timm/" in command:
        return f"{command} --print_config"
    if "finetune.yaml" in command:
        return f"{command} --epochs 2"
    return command.replace("scripts/doctor.py", "scripts/doctor.py --no_probe")


def failures_of(commands: Iterable[str], root: Path, **variables: str) -> List[str]:
    """Runs commands in turn; those that fail, with the ends of what they said."""
    environment = {**os.environ, "PYTHONPATH": "", **variables}
    failures = []
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=root,
            capture_output=True,
            text=True,
            env=environment,
            timeout=600,
        )
        if done.returncode:
            failures.append(f"{command}\n{done.stdout[-600:]}\n{done.stderr[-900:]}")
    return failures


# Minutes: every command starts its own process and compiles its own graphs.
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_of_the_readme_works(clone: Path) -> None:
    from torch_oracle import torch  # noqa: F401

    prepare(clone)
    tried = [runnable(command) for page in TRIED for command in commands(page)]
    failures = failures_of(tried, clone)
    assert not failures, "\n\n".join(failures)
    assert (clone / "Z.safetensors").is_file()
    assert (clone / "outputs" / "report" / "report.html").is_file()
