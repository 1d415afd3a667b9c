"""The configuration of each program: its sections, and `parse_args` which fills them.

A YAML recipe is flat: each field of a section is one key. `src/settings` declares them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from .configs import parser
from .configs.parser import Entry, FieldError
from .errors import UserError
from .runtime.text import escape_on_screen, printable
from .settings.data import DataConfig
from .settings.model import ModelConfig
from .settings.optim import OptimConfig
from .settings.programs import EvalConfig, ExportConfig, PreprocessConfig, ServingConfig
from .settings.train import RunConfig, TrainConfig

# Options that are no keys.
_CONFIG, _PRINT_CONFIG, _HELP = "config", "print_config", "help"
# Spellings of the model zoo and customary ones; those of a key stand where it is declared.
_ALIASES = {"--cct_config": _CONFIG, "-h": _HELP}
PROGRAM = "program"
# Keys of training whose operations know RGB only.
_OF_COLOURS = ("auto_augment", "color_jitter", "grayscale_prob", "gaussian_blur_prob")
_RUN_MODELARTS = "run_modelarts"
# Keys younger than files that hold a recipe -> what was done before.
_BEFORE: Dict[str, Any] = {"background": None}
# Keys of recipes inside files of earlier versions -> what they are called now; None: without
# effect since. No key that a checkpoint may hold has gone yet (tests/fixtures/every_key.yaml).
_FORMER: Dict[str, Optional[str]] = {}
_HELP_HEAD = """\
{about}

Every key is an option, and a line `KEY: VALUE` of the YAML file. The command line goes
before the file, the file before the file it names as `base:`, and that before defaults.

  -h, --help
      this text
  --config FILE, --cct_config FILE
      recipe: flat YAML
  --print_config
      print every value and where it came from, as YAML, and exit
"""

_USAGE = "usage: PROGRAM [--config FILE] [--KEY VALUE ...]"

AnyConfig = TypeVar("AnyConfig", bound="Config")


@dataclass(frozen=True)
class Config:
    """The five sections, and where each value came from."""

    # whether the program trains: what only training needs is checked
    TRAINS: ClassVar[bool] = True
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    # key -> "default", "FILE:LINE", "command line", a file of weights, or "program" (`replace`)
    origins: Dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        origins = {key: self.origins.get(key, parser.DEFAULT) for key in parser.keys_of(type(self))}
        object.__setattr__(self, "origins", origins)
        mean, std = (
            for_channels(key, getattr(self.data, key), self.model.in_chans)
            for key in ("mean", "std")
        )
        data = dataclasses.replace(self.data, mean=mean, std=std)
        object.__setattr__(self, "data", data)
        if self.TRAINS:
            self._check_training()

    def _check_training(self) -> None:
        if self.model.in_chans == 4:
            _check_opacity(self.data)
        for name in parser.section_types(type(self)):
            getattr(self, name).check_training()
        _check_multi_label(self)
        warmup_length, epochs = self.optim.warmup_length, self.train.epochs
        if 0 < epochs < warmup_length:
            raise FieldError(
                ["warmup_length", "epochs"],
                warmup_length,
                f"warmup_length <= epochs; these are {warmup_length} and {epochs}",
            )
        # A crop must show something of the image.
        padding, image_size = self.data.crop_padding, self.model.image_size
        if 0 < image_size <= padding:
            raise FieldError(
                ["crop_padding", "image_size"],
                padding,
                f"crop_padding < image_size; these are {padding} and {image_size}",
            )

    def serving_batch(self) -> int:
        """Images per file or call when serving: those of --batch_size, else 1.

        The batch_size of a recipe is for training.
        """
        is_given = self.origins["batch_size"] == parser.COMMAND_LINE
        return self.data.batch_size if is_given else 1

    def flat(self) -> Dict[str, Any]:
        """Every key with its value, in the order of declaration."""
        return parser.flatten(self)


@dataclass(frozen=True)
class ExportRun(Config):
    """What export.py reads."""

    TRAINS: ClassVar[bool] = False
    serving: ServingConfig = field(default_factory=ServingConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


@dataclass(frozen=True)
class EvalRun(Config):
    """What eval.py reads."""

    TRAINS: ClassVar[bool] = False
    evaluation: EvalConfig = field(default_factory=EvalConfig)


@dataclass(frozen=True)
class PreprocessRun(Config):
    """What preprocess.py reads."""

    TRAINS: ClassVar[bool] = False
    serving: ServingConfig = field(default_factory=ServingConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)


@dataclass(frozen=True)
class PredictRun(Config):
    """What predict.py reads beside its own options."""

    TRAINS: ClassVar[bool] = False


def for_channels(key: str, values: Tuple[float, ...], in_chans: int) -> Tuple[float, ...]:
    """A value of `mean` or `std` for each channel.

    Raises:
        FieldError: another number of them than this may be told from.
    """
    if len(values) == in_chans:
        return values
    if len(values) == 1:
        return values * in_chans
    if len(values) == 3 and in_chans == 1:
        # What weights of 3 channels, summed over them, see of a grey image.
        return (round(sum(values) / 3, 6),)
    if len(values) == 3:
        return (*values, 0.5)
    counts = "1 or 3" if in_chans != 4 else "1, 3 or 4"
    raise FieldError([key, "in_chans"], values, f"{counts} numbers, for in_chans {in_chans}")


def _check_opacity(data: DataConfig) -> None:
    """Refuses what is made for RGB only, for images with opacity beside it.

    Raises:
        FieldError: naming the key.
    """
    for key in _OF_COLOURS:
        value = getattr(data, key)
        if value:
            raise FieldError([key, "in_chans"], value, f"{key} off, or in_chans 1 or 3")
    if data.re_prob and data.re_mode == "rand":
        raise FieldError(["re_mode", "in_chans"], data.re_mode, "const or pixel, for in_chans 4")


def _check_multi_label(config: Config) -> None:
    """Refuses what is for one label an image where there are several, and the other way round.

    Raises:
        FieldError: naming the keys.
    """
    separator, metric = config.data.label_separator, config.train.best_metric
    if separator is None:
        if metric == "map":
            raise FieldError(
                ["best_metric", "label_separator"],
                metric,
                "top1, macro_recall or loss, or with label_separator map",
            )
        return
    if config.optim.criterion != "bce" or metric == "top1":
        raise FieldError(
            ["label_separator", "criterion", "best_metric"],
            separator,
            "null, or with --criterion bce and --best_metric map (or macro_recall, loss); these "
            f"are {config.optim.criterion} and {metric}",
        )
    if config.optim.distillation_type != "none":
        raise FieldError(
            ["distillation_type", "label_separator"],
            config.optim.distillation_type,
            "none with label_separator; a teacher names one class",
        )


# What settles values that nobody has given, by the file of weights for instance.
Completion = Callable[[Any], Any]


def parse_args(
    argv: Optional[Sequence[str]] = None,
    config_type: Type[Config] = Config,
    *,
    complete: Optional[Completion] = None,
    about: Optional[str] = None,
) -> Any:
    """The configuration of a program: the defaults, under `--config FILE`, under the command line.

    Args:
        argv: the words after the program's name; None: those of `sys.argv`.
        config_type: Config, or a program's extension of it by sections of its own, which recipes
            may not have keys of.
        complete: what else the program asks for values, so that `--print_config` shows them.
        about: what `--help` says first: what the program does, and how it is called.

    Returns:
        A `config_type`.

    Raises:
        SystemExit: with 0 after `--help` or `--print_config`; with 2, and one line on stderr,
            after an error of the user.
        UserError: that error, when there is `--debug`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _config_of(arguments, config_type, complete, about)
    except UserError as error:
        if "--debug" in arguments:
            raise
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None


def replace(config: AnyConfig, **values: Any) -> AnyConfig:
    """A copy of `config` with other values for some flat keys, checked like any other.

    Raises:
        UserError: an unknown key, or a value that is not allowed.
    """
    return with_values(config, values, origin=PROGRAM)


def with_values(config: AnyConfig, values: Mapping[str, Any], *, origin: str) -> AnyConfig:
    """The same; `origin` says where the values came from, in messages and `--print_config`."""
    entries = {key: Entry(value, config.origins[key]) for key, value in config.flat().items()}
    entries.update({key: Entry(value, origin) for key, value in values.items()})
    return parser.build(type(config), entries)


def to_yaml(config: Config, with_origins: bool = False) -> str:
    """`config` as YAML with a heading per section; `from_yaml_text` gives an equal one back.

    Args:
        with_origins: add where each value came from as a comment at the end of its line.
    """
    return parser.to_yaml(config, with_origins)


def from_yaml_text(text: str, name: str) -> Config:
    """The configuration of a YAML text.

    Args:
        name: what messages and origins call the text.

    Raises:
        UserError: invalid YAML, `base:`, an unknown key, a value that is not allowed.
    """
    return parser.read_text(Config, text, name, {})


def from_saved_text(text: str, name: str) -> Config:
    """As `from_yaml_text`, of a text that `to_yaml` wrote, such as the one inside a checkpoint.

    Keys that are younger than the text say what was done before there was such a key; those that
    were renamed or dropped since are read by _FORMER.
    """
    config = parser.read_text(Config, text, name, _FORMER)
    younger = {key for key in _BEFORE if config.origins[key] == parser.DEFAULT}
    return replace(config, **{key: _BEFORE[key] for key in younger}) if younger else config


def _config_of(
    arguments: List[str],
    config_type: Type[Config],
    complete: Optional[Completion],
    about: Optional[str],
) -> Config:
    options = _options(config_type)
    known, ignored = parser.split_known(arguments, options)
    words = parser.split_command_line(known, options)
    if _HELP in words:
        head = _HELP_HEAD.format(about=(about or _USAGE).strip())
        _print_and_exit(f"{head}\n{help_of_keys(config_type)}")
    keys = parser.keys_of(config_type)
    given = {
        key: parser.command_line_entry(key, words[key], is_flag=keys.get(key, bool) is bool)
        for key in words
        if key != _CONFIG
    }
    is_printed = _flag(given.pop(_PRINT_CONFIG, None))
    entries = {**(_recipe(words, given) if _CONFIG in words else {}), **given}
    if ignored and not (_RUN_MODELARTS in entries and entries[_RUN_MODELARTS].value is True):
        parser.split_command_line(arguments, options)  # says which is unknown
    config = _in_float32_on_a_cpu(parser.build(config_type, entries))
    if ignored:
        print(f"run_modelarts: ignored {printable(' '.join(ignored))}", file=sys.stderr)
    if is_printed:
        config = complete(config) if complete else config
        _print_and_exit(to_yaml(config, with_origins=True))
    return config


def _in_float32_on_a_cpu(config: AnyConfig) -> AnyConfig:
    """With amp_level O0 where a recipe says otherwise, which it says of an accelerator.

    A CPU gains nothing by half precision: it takes longer and more memory. What the command line
    says holds.
    """
    level, origin = config.train.amp_level, config.origins["amp_level"]
    is_of_recipe = origin not in (parser.DEFAULT, parser.COMMAND_LINE)
    if config.run.device_target != "CPU" or level in ("O0", "auto") or not is_of_recipe:
        return config
    changed = replace(config, amp_level="O0")
    changed.origins["amp_level"] = f"{origin} says {level}; O0 on a CPU"
    return changed


def recipes_amp_level(config: Config) -> str:
    """The amp_level that a CPU put O0 in the place of; empty where none was."""
    said = re.search(r" says (O[123]); O0 on a CPU$", config.origins["amp_level"])
    return said[1] if said else ""


def _options(config_type: Type[Config]) -> Dict[str, str]:
    """Every spelling of every option -> its key."""
    names = [*parser.keys_of(config_type), _CONFIG, _PRINT_CONFIG, _HELP]
    return {**{f"--{name}": name for name in names}, **_aliases(config_type)}


def _aliases(config_type: Type[Config]) -> Dict[str, str]:
    """Every other spelling of an option -> its key."""
    declared = parser.declared_keys(config_type)
    return {**_ALIASES, **{key.also: name for name, key in declared.items() if key.also}}


def _flag(entry: Optional[Entry]) -> bool:
    if entry is not None and type(entry.value) is not bool:
        raise UserError(
            f"command line: --{_PRINT_CONFIG}: {parser.show(entry.value)} is not allowed; "
            "allowed: nothing, true or false"
        )
    return entry is not None and entry.value


def _recipe(words: Dict[str, List[str]], given: Dict[str, Entry]) -> Dict[str, Entry]:
    if len(words[_CONFIG]) != 1:
        shown = parser.show(words[_CONFIG])
        raise UserError(f"command line: --{_CONFIG}: needs one file, but was given {shown}")
    synonyms = {option.lstrip("-"): key for option, key in _aliases(Config).items()}
    endpoint = given["obs_endpoint"].value if "obs_endpoint" in given else None

    def fetch(url: str) -> bytes:
        # Imported here: a recipe on the disk needs none of it.
        from .storage.moxing_adapter import read_small_file

        return read_small_file(url, endpoint=endpoint)

    return parser.read_files(words[_CONFIG][0], parser.keys_of(Config), synonyms, fetch=fetch)


def _print_and_exit(text: str) -> NoReturn:
    # A terminal that cannot show a character gets its escape, which YAML reads back.
    escape_on_screen()
    with contextlib.suppress(BrokenPipeError):  # `| head` has seen enough
        print(text, end="")
    raise SystemExit(0)


def help_of_keys(config_type: Type[Config] = Config) -> str:
    """Every key as an option, by section: spellings, meaning, allowed values, default."""
    lines: List[str] = []
    for name, section_type in parser.section_types(config_type).items():
        lines += ["", f"{name}: {parser.title_of(section_type)}"]
        declared = parser.section_keys(section_type)
        for key, default in vars(section_type()).items():
            also = declared[key].also
            lines.append(f"  --{key}" + (f", {also}" if also else ""))
            lines.append(f"      {declared[key].text()} (default: {parser.to_flow(default)})")
    return "\n".join(lines[1:]) + "\n"
