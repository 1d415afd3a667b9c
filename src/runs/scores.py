"""The scores that can decide which checkpoint is the best."""

from __future__ import annotations

from typing import Dict, NamedTuple


class Score(NamedTuple):
    """How a score is called and shown, and which way is up."""

    title: str
    form: str
    lower_is_better: bool = False

    def text(self, value: float) -> str:
        """`91.250 %`."""
        return self.form.format(value)

    def is_better(self, value: float, than: float) -> bool:
        return value < than if self.lower_is_better else value > than


# A choice of `best_metric`, which is the name of the score in `EvalResult` -> the score.
SCORES: Dict[str, Score] = {
    "top1": Score("top-1", "{:.3f} %"),
    "macro_recall": Score("macro recall", "{:.3f} %"),
    "loss": Score("loss", "{:.4f}", lower_is_better=True),
    "map": Score("mAP", "{:.3f} %"),
}
