"""Automatic mixed precision: which cells compute in half precision, and the scale of the loss."""

from __future__ import annotations

from collections import Counter
from typing import Dict, NamedTuple, Tuple, Type

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ..args import Config
from ..errors import UserError
from ..models.layers.activation import Gelu
from ..models.layers.attention import DotProductAttention, SplitHeads
from ..models.layers.norm import GlobalResponseNorm, SimpleNorm
from ..models.layers.random_draws import FrameworkUniform, SeededUniform
from ..overrides import is_override
from ..runtime.device import has_float32_convolutions, why_no_bfloat16

Cells = Tuple[Type[nn.Cell], ...]

_NORMS: Cells = (nn.LayerNorm, nn.GroupNorm, SimpleNorm, GlobalResponseNorm)
_BATCH_NORMS: Cells = (nn.BatchNorm1d, nn.BatchNorm2d)
_SOFTMAX: Cells = (nn.Softmax,)
_GELU: Cells = (Gelu,)
_NO_ARITHMETIC: Cells = (
    *(nn.Identity, nn.CellList, nn.SequentialCell),
    *(nn.Dropout, FrameworkUniform, SeededUniform, SplitHeads),
)
# Where nearly all multiplications are.
_MATRIX_CELLS: Cells = (nn.Dense, nn.Conv2d, DotProductAttention)


def resolve_amp(config: Config) -> Tuple[str, str]:
    """Level and half type that the recipe comes to on its device: (`O2`, `float16`).

    `auto` is O0 on a CPU, which gains nothing from half precision, and O2 elsewhere.

    Raises:
        UserError: bfloat16 where device or version have none.
    """
    level, dtype = config.train.amp_level, config.train.amp_dtype
    if level == "auto":
        level = "O0" if config.run.device_target == "CPU" else "O2"
    if level != "O0" and dtype == "bfloat16":
        reason = why_no_bfloat16(config.run)
        if reason:
            raise UserError(f"amp_dtype 'bfloat16': {reason}; use amp_dtype: float16")
    return level, dtype


class ScaleRule(NamedTuple):
    """How a run scales its loss: from `value` on; `dynamic`: grows after `window` finite steps."""

    value: float
    dynamic: bool
    window: int


# What the model zoo's recipes start with on Ascend, and torch elsewhere.
_ASCEND_RULE = ScaleRule(2.0**12, dynamic=True, window=1000)
_RULE = ScaleRule(2.0**16, dynamic=True, window=2000)


def resolve_loss_scale(config: Config) -> ScaleRule:
    """The recipe's rule where anything computes in float16; elsewhere the scale is 1 and stays."""
    level, dtype = resolve_amp(config)
    train = config.train
    default = _ASCEND_RULE if config.run.device_target == "Ascend" else _RULE
    window = train.loss_scale_window or default.window
    if dtype != "float16" or (level == "O0" and has_float32_convolutions(config.run)):
        return ScaleRule(1.0, dynamic=False, window=window)
    return ScaleRule(train.loss_scale or default.value, train.is_dynamic_loss_scale, window)


def apply_amp(
    network: nn.Cell, level: str, *, dtype: str = "float16", keep_bn_fp32: bool = True
) -> None:
    """Marks the cells of `network`; its parameters stay float32.

    | level | half precision | float32 |
    |---|---|---|
    | O0 | nothing | everything |
    | O1 | Dense, Conv2d, attention's products | the rest |
    | O2 | the rest | norms, softmax, GELU; BatchNorm by `keep_bn_fp32` |
    | O3 | everything | nothing |

    The loss is float32 at every level. `precision_table` shows what a network comes to.

    Raises:
        ValueError: cells that compute in float32 only, because the network was not built within
            `without_overrides`.
    """
    if level == "O0":
        return
    if any(is_override(cell) for _, cell in network.cells_and_names()):
        raise ValueError(f"amp_level {level}: build the network within without_overrides()")
    half = getattr(ms, dtype)
    kept = {"O1": _SOFTMAX, "O2": (*_NORMS, *_SOFTMAX, *_GELU), "O3": ()}[level]
    if level == "O2" and keep_bn_fp32:
        kept = (*kept, *_BATCH_NORMS)
    network.to_float(ms.float32 if level == "O1" else half)
    for _, cell in network.cells_and_names():
        if level == "O1" and isinstance(cell, _MATRIX_CELLS):
            cell.to_float(half)  # with all it holds: the softmax comes after its attention
        if kept and isinstance(cell, kept):
            cell.to_float(ms.float32)
            if isinstance(cell, Gelu):
                cell.keep_input_only()  # float32 would take more memory than half precision did


def _is_inside_another(cell: nn.Cell) -> bool:
    """What the framework keeps to itself: the cell around it has the known name."""
    return type(cell).__name__.startswith("_")


def precision_table(network: nn.Cell) -> str:
    """Two lines: the innermost cells that compute in half precision and in float32, counted.

    Read from the cells themselves, so it holds whatever marked them.
    """
    counts: Dict[str, Counter] = {"half": Counter(), "float32": Counter()}
    for _, cell in network.cells_and_names():
        if _is_inside_another(cell):
            continue
        inner = [child for child in cell.cells() if not _is_inside_another(child)]
        if isinstance(cell, _MATRIX_CELLS) or not (inner or isinstance(cell, _NO_ARITHMETIC)):
            flags = cell.get_flags()
            is_half = flags.get("fp16", False) or flags.get("bf16", False)
            counts["half" if is_half else "float32"][type(cell).__name__] += 1
    lines = []
    for precision, cells in counts.items():
        names = [f"{name} {count}" for name, count in sorted(cells.items())]
        names += ["loss", "weights", "optimizer"] if precision == "float32" else []
        lines.append(f"  {precision:8}{', '.join(names) or 'nothing'}")
    return "\n".join(lines)


class LossScale(nn.Cell):
    """Scale of the loss (Micikevicius et al. 2018, section 3.2), saved with the training state.

    `construct(finite)`: without `dynamic` nothing happens. Otherwise an overflow divides the scale
    by `factor` (not below 1), and `window` finite steps in a row multiply it by `factor`.

    Attributes:
        is_one: the scale is 1 and stays so, whatever state is loaded.
    """

    def __init__(self, value: float, *, dynamic: bool, factor: float, window: int) -> None:
        super().__init__(auto_prefix=False)
        self.value = Parameter(
            Tensor(value, ms.float32), name="train.loss_scale", requires_grad=False
        )
        self.finite_steps = Parameter(
            Tensor(0, ms.int32), name="train.finite_steps", requires_grad=False
        )
        self.dynamic = dynamic
        self.is_one = not dynamic and value == 1.0
        self.factor = factor
        self.window = window

    def present(self) -> Tensor:
        """The scale of the next step, ()."""
        return ops.ones((), ms.float32) if self.is_one else self.value + 0.0

    def construct(self, finite: Tensor) -> Tensor:
        value = self.present()
        if self.dynamic:
            finite_steps = ops.select(finite, self.finite_steps + 1, ops.zeros((), ms.int32))
            grow = finite_steps >= self.window
            # Past float32 a larger scale would be infinite: it stays.
            larger = ops.minimum(value * self.factor, 2.0**126)
            smaller = ops.maximum(value / self.factor, 1.0)
            value = ops.select(finite, ops.select(grow, larger, value), smaller)
            ops.assign(self.value, value)
            ops.assign(self.finite_steps, ops.select(grow, ops.zeros((), ms.int32), finite_steps))
        return value
