"""What a message advises is possible: options, keys, values, files, packages, variables."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Set

import pytest
from markdown_pages import PAGES
from packaging.specifiers import SpecifierSet
from program_options import Program, key_allows, option_tables, options_in_text
from remedies import (
    CPP_PROGRAM,
    HOLE,
    ROOT,
    Message,
    all_messages,
    cpp_messages,
    page_messages,
    programs,
    python_messages,
    shell_messages,
    shell_scripts,
)

from src.args import Config, EvalRun, ExportRun, PreprocessRun
from src.configs.parser import declared_keys
from src.models.registry import list_models, resolve

# Packages that messages name for apt-get and that Debian 12 or Ubuntu 22.04 has
# (packages.debian.org, packages.ubuntu.com).
APT = {
    *("g++", "g++-9", "g++-aarch64-linux-gnu", "python3", "python3-venv", "debootstrap"),
    *(
        "libjpeg-dev",
        "libpng-dev",
        "qemu-user-static",
        "fonts-noto-cjk",
        "fonts-wqy-zenhei",
        "dataset-fashion-mnist",
    ),
}
# What benchmarks compare with, which nothing else needs.
PEERS = {"mindcv", "vit-pytorch", "einops", "nvidia-dali-cuda120"}
# Programs of others, whose options are not ours to check.
FOREIGN = "docker converter_lite atc pip apt-get cmake uv bash eval npu-smi hccn_tool mount".split()
FOREIGN_OPTIONS = {"--optimize", "--configFile", "--soc_version"}  # converter_lite and atc
# Variables of others: who reads them.
FOREIGN_VARIABLES = {
    "CUDA_HOME": "mindspore/run_check/_check_version.py",
    "CUDA_CACHE_MAXSIZE": "the CUDA driver",
    "ONEDNN_MAX_CPU_ISA": "oneDNN",
    "AWS_ACCESS_KEY_ID": "botocore",
    "AWS_SECRET_ACCESS_KEY": "botocore",
    "AWS_SESSION_TOKEN": "botocore",
    "AWS_ENDPOINT_URL": "botocore",
    "SSL_CERT_FILE": "OpenSSL",
    "UV_DEFAULT_INDEX": "uv",
    "HCCL_CONNECT_TIMEOUT": "HCCL",
    **dict.fromkeys(("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN"), "huggingface_hub"),
}
# Files of a run, of a data set or of another product, and examples.
NOT_OURS = {"program.py", "config.yaml", "set_env.sh", "README.md"}
RECIPE_RUNS = (Config, EvalRun, ExportRun, PreprocessRun)

_OPTION = re.compile(r"(?<![\w-])(--[A-Za-z]\w*)(?![\w-])(?:[ =]([^\s,;)`]+))?")
_FILE = re.compile(r"(?<![\w.*}/-])(?:[\w.-]+/)*[\w-]+\.(?:py|sh|md)\b|requirements[\w-]*\.txt")
_PIP = re.compile(r"pip install ((?:--[\w-]+\s|-r\s)*)([^;,)\n&`]+)")
_VARIABLE = re.compile(r"(?:^|\s)([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b")
_VERB = r"(?:set|give|use|lower|raise|leave|check|enlarge|reduce|increase|decrease|pass)"


@functools.cache
def tables() -> Dict[str, Program]:
    return option_tables(programs())


@functools.cache
def options_of(program: str) -> FrozenSet[str]:
    """The options of a program of any kind."""
    if program in tables():
        return frozenset(tables()[program].options())
    if program == CPP_PROGRAM:
        return frozenset(options_in_text((ROOT / "ascend310_infer/src/arguments.cc").read_text()))
    text = (ROOT / program).read_text()
    # What a script hands on are options of those it calls.
    called = [name for name in programs() if f"/{Path(name).name}" in text]
    handed_on = [options_of(name) for name in called]
    return frozenset(options_in_text(text)).union(*handed_on)


def named_program(word: str) -> str:
    """The program that a word such as `eval.py` or `scripts/launch.py` is, or nothing."""
    for known in [*programs(), *shell_scripts()]:
        if word in (known, Path(known).name):
            return known
    return ""


# --- what is wrong with a message ---------------------------------------------------------------


def faults_of(message: Message) -> List[str]:
    """All that its remedies get wrong."""
    checks = (wrong_options, wrong_keys, wrong_files, wrong_packages, wrong_variables)
    return [f"{message.place}: {fault}" for check in checks for fault in check(message)]


def wrong_options(message: Message) -> Iterator[str]:
    """An option belongs to the program named before it in its clause, else to the sayers."""
    for clause in re.split(r"[;:,]\s|\.\s|\n\s*\n|\n {2,}(?=-)", message.text):
        if any(re.search(rf"(?<!\w){name} ", clause) for name in FOREIGN):
            clause = re.sub(rf"(?<!\w)(?:{'|'.join(FOREIGN)}) .*", "", clause, flags=re.DOTALL)
        for match in _OPTION.finditer(clause):
            option, value = match[1], match[2] or ""
            if re.fullmatch("--[A-Z]+", option) or option in FOREIGN_OPTIONS:
                continue
            before = [named_program(found) for found in _FILE.findall(clause[: match.start()])]
            owners = [name for name in before if name][-1:] or sorted(message.programs)
            knowing = [name for name in owners if option in options_of(name)]
            if not knowing:
                yield f"{option} is no option of {', '.join(owners[:4])}: {clause.strip()!r}"
            elif not any(_allows(name, option, value) for name in knowing):
                yield f"{option} takes no {value!r}: {clause.strip()!r}"


def _allows(program: str, option: str, value: str) -> bool:
    """Words that stand for a value, and prose after an option, pass."""
    is_literal = re.fullmatch(r"-?\d[\w.]*|[A-Z]?[a-z0-9_]+|[A-Z]\d", value)
    if not is_literal or program not in tables() or _follows(value):
        return True
    return tables()[program].allows(option, value)


def _follows(word: str) -> bool:
    """Whether it goes on with the sentence rather than with the command."""
    return word in "or if keeps out on and to is of must are names made they".split()


def wrong_keys(message: Message) -> Iterator[str]:
    """`set KEY: VALUE` is a key with an allowed value; `lower some_key` is a key or an option."""
    keys = {key for run in RECIPE_RUNS for key in declared_keys(run)}
    options = {option.lstrip("-") for name in message.programs for option in options_of(name)}
    if CPP_PROGRAM in message.programs:
        options |= set(re.findall(r"\w+", (ROOT / "ascend310_infer/src/arguments.cc").read_text()))
    for key, value in re.findall(r"\b([a-z]\w*): ([\w.]+)", message.text):
        runs = [run for run in RECIPE_RUNS if key in declared_keys(run)]
        is_advised = re.search(rf"{_VERB} {key}: {re.escape(value)}", message.text)
        is_literal = runs and is_advised and not value.isupper()
        if is_literal and not any(key_allows(run, key, value) for run in runs):
            yield f"{key} takes no {value!r}"
    for key in re.findall(rf"\b{_VERB} `?([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b(?!\()", message.text):
        if key not in keys | options | _keywords_of_networks():
            yield f"{key} is no key of a recipe, nor an option"


@functools.cache
def _keywords_of_networks() -> FrozenSet[str]:
    """What `model_args` may hold."""
    return frozenset(keyword for arch in list_models() for keyword in resolve(arch)[1])


def wrong_files(message: Message) -> Iterator[str]:
    for name in _FILE.findall(message.text):
        stem = Path(name).stem
        if name not in NOT_OURS and not stem.isupper() and not name.startswith("."):
            places = [ROOT / name, ROOT / "scripts" / name, ROOT / "docs" / name]
            places += [(ROOT / message.place).parent / name]
            if not any(place.is_file() for place in places):
                yield f"there is no {name}"


@functools.cache
def _known_packages() -> str:
    listed = [path.read_text() for path in ROOT.glob("requirements*.txt")]
    return "\n".join([*listed, (ROOT / "scripts" / "common.sh").read_text()])


def _overlaps(limit: str, line: str) -> bool:
    """Whether the least version of a requirement's line keeps the limit; a line may have none."""
    least = re.search("[>=]=([0-9.]+)", line)
    return least is None or SpecifierSet(limit).contains(least[1])


def wrong_packages(message: Message) -> Iterator[str]:
    """pip installs what is in a requirements file, within its limits; apt-get what there is."""
    for flags, words in _PIP.findall(message.text):
        if "-r" not in flags:
            for word in re.findall(r"'[^']+'|[a-z][\w<>=.-]*", words.split(" or ")[0]):
                found = re.fullmatch(r"(\w[\w.-]*?)([<>=].*)?", word.strip("'"))
                if found is None or found[1] in PEERS:  # a path, this package
                    continue
                name, limit = found.groups()
                lines = re.findall(rf"(?:^|[ (]){name}(?![\w-]).*", _known_packages(), re.MULTILINE)
                if not lines:
                    yield f"pip install {name}: in no requirements file"
                elif limit and not any(_overlaps(limit, line) for line in lines):
                    yield f"pip install {word}: no requirements file allows that"
    for words in re.findall(r"apt-get install ((?:-y )?[\w+. -]+)", message.text):
        for word in words.replace("-y ", "").split():
            if word not in APT and re.match("[a-z]", word):
                yield f"apt-get install {word}: not on the list of this test"


@functools.cache
def _everything() -> str:
    """Code, without messages, is what reads a variable."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*"), *ROOT.glob("*.py")]
    paths += [*(ROOT / "ascend310_infer").rglob("*.*")]
    return "\n".join(path.read_text("utf-8") for path in paths if path.is_file())


def wrong_variables(message: Message) -> Iterator[str]:
    is_sql = message.text.startswith("SELECT ")
    for name in [] if is_sql else _VARIABLE.findall(message.text):
        reads = rf"""["']{name}["']|\$\{{?{name}\b|\b{name} MS_|MS_\w+ {name}\b|{name}=|<{name}>"""
        placeholder = re.search(rf"\[{name}[\]|]|\|{name}|--\w+ {name}\b", message.text)
        is_known = name in FOREIGN_VARIABLES or re.search(reads, _everything())
        if not (is_known or placeholder or _is_argument(name)):
            yield f"nothing reads {name}"


def _is_argument(name: str) -> bool:
    """Words in capitals for what the user puts in: FILE_OR_FOLDER, DATASET_NAME."""
    return bool(re.search(rf"\[[A-Z_|]*{name}", _everything())) or "_OR_" in name


# --- the tests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def messages() -> List[Message]:
    return all_messages()


def test_there_are_messages_of_every_kind(messages: List[Message]) -> None:
    kinds: Set[str] = {Path(message.place.rpartition(":")[0]).suffix for message in messages}
    assert kinds == {".py", ".sh", ".cc"}
    with_option = [message for message in messages if _OPTION.search(message.text)]
    assert len(with_option) > 80


def test_every_remedy_is_possible(messages: List[Message]) -> None:
    assert [fault for message in messages for fault in faults_of(message)] == []


@pytest.mark.parametrize(
    "text",
    [
        "raise UserError(f'{x}: no good; give --nosuch FILE')",
        "raise UserError('x: no good; ' + f'give --amp_level {level} or --amp_level O7')",
        "logger.warning('slow; use eval.py --mindri FILE')",
        "hint = 'pass it by --for_mindir FILE'",  # of preprocess.py only
        "raise UserError('x; set batch_sise to 3')",
        "raise UserError('x; set on_bad_image: skipp')",
        "raise UserError('x; run scripts/pack_data.py')",
        "raise UserError('x; docs/nosuch.md says more')",
        "raise UserError('x; pip install -r requirements-nosuch.txt')",
        "raise UserError('x; pip install nosuchpackage')",
        "raise UserError(\"x; pip install 'pyarrow<3'\")",
        "raise UserError('x; apt-get install nosuch')",
        "raise UserError('x; set NOSUCH_VARIABLE to a folder')",
    ],
)
def test_an_untrue_remedy_is_found(text: str) -> None:
    said = python_messages(text, "src/new.py", frozenset({"train.py"}))
    assert [fault for message in said for fault in faults_of(message)]


def test_an_untrue_remedy_of_the_shell_and_of_cpp_is_found() -> None:
    said = shell_messages('die "none; eval.py --nosuch writes it"', "scripts/quickstart.sh")
    said += cpp_messages('throw UserError("no " + name + "; run preprocess.py --mindir");', "a.cc")
    assert [len(faults_of(message)) for message in said] == [1, 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_documentation_is_possible(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    said = page_messages(page.read_text("utf-8"), name)
    ours = [m for m in said if any(named_program(file) for file in _FILE.findall(m.text))]
    assert [f"{m.place}: {fault}" for m in ours for fault in wrong_options(m)] == []


# What other programs say, in docs/troubleshooting.md.
_THEIRS = {"numpy.core.multiarray failed to import", "set: pipefail: invalid option name"}
_THEIRS |= {"$'\\r': command not found"}


def quoted_messages(page: str) -> List[str]:
    """`code` of several words in the first column of the tables."""
    cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [code for code in found if "..." in code or code.count(" ") > 1]


def unsaid(quoted: str, said: str) -> List[str]:
    """Parts of a message, between its values, that no message has."""
    parts = re.split(r"\.\.\.|[;,]|'[^']*'|\b\d+\b", quoted)
    return [part for part in (part.strip(" :()") for part in parts) if not _is_in(part, said)]


def _is_in(part: str, said: str) -> bool:
    """Half of the words may be values."""
    words = part.split()
    pattern = " ".join(rf"(?:{re.escape(word)}|\(?{re.escape(HOLE)})" for word in words)
    return any(2 * found.count(HOLE) <= len(words) for found in re.findall(pattern, said))


def test_the_page_of_troubles_has_the_words_of_the_messages(messages: List[Message]) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = [text for text in quoted_messages(page) if text not in _THEIRS]
    assert len(quoted) > 25
    said = "\n".join(message.text for message in messages)
    assert {text: unsaid(text, said) for text in quoted if unsaid(text, said)} == {}
    assert unsaid("train_url ...: holds a runn already", said) == ["holds a runn already"]


@pytest.mark.parametrize("name", [n for n in shell_scripts() if not n.endswith("common.sh")])
def test_help_of_a_script(name: str) -> None:
    done = subprocess.run(["bash", name, "-h"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
