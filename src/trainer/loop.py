"""The training loop: explicit, one step at a time."""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.args import Config, to_yaml
from src.data.imagenet import Batch, ImageDataset
from src.tools.callback import ProgressDisplay, StepClock, StepTimes
from src.tools.checkpoint import CheckpointFolder
from src.tools.metrics import EvalResult
from src.tools.records import Records, draw_curves, read_records
from src.trainer.evaluate import EvalNet, evaluate
from src.trainer.train_one_step import TrainOneStep

_LOGGER = logging.getLogger(__name__)

_Outputs = Tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass
class RunState:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    best_top1: float = -1.0
    best_epoch: int = 0

    def as_meta(self, config: Config) -> Dict[str, Any]:
        """What a checkpoint says of itself: this state, the resolved config and the versions."""
        return {
            "arch": config.model.arch,
            "num_classes": config.model.num_classes,
            "step": self.step,
            "best_top1": self.best_top1,
            "best_epoch": self.best_epoch,
            "config": to_yaml(config),
            "versions": {
                "mindspore": ms.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    @staticmethod
    def from_meta(meta: Dict[str, Any]) -> RunState:
        return RunState(meta["step"], meta["best_top1"], meta["best_epoch"])


class Trainer:
    """Runs the steps that are left, evaluates and saves between epochs."""

    def __init__(
        self,
        config: Config,
        train_step: TrainOneStep,
        eval_net: EvalNet,
        *,
        train_set: ImageDataset,
        val_set: ImageDataset,
        lr_schedule: np.ndarray,
        checkpoints: CheckpointFolder,
        records: Records,
        state: RunState,
    ) -> None:
        self.config = config
        self.train_step = train_step
        self.eval_net = eval_net
        self.train_set = train_set
        self.val_set = val_set
        self.lr_schedule = lr_schedule
        self.checkpoints = checkpoints
        self.records = records
        self.state = state
        self.clock = StepClock()
        self.display = ProgressDisplay(len(lr_schedule), first_step=state.step)
        self._unread: List[_Outputs] = []

    def announce(self) -> None:
        """Says what is about to run."""
        parameters = self.eval_net.network.get_parameters()
        _LOGGER.info(
            "%s: %s parameters; %d training and %d validation images; %d steps an epoch of %d "
            "images; the first step includes the compilation of the graph",
            self.config.model.arch,
            f"{sum(parameter.size for parameter in parameters):,}",
            self.train_set.num_samples,
            self.val_set.num_samples,
            self.train_set.steps_per_epoch,
            self.config.data.batch_size,
        )

    def conclude(self) -> None:
        """Draws the curves and says where everything is."""
        folder = self.checkpoints.folder
        rows = read_records(folder / "metrics.csv")
        draw_curves(rows, folder / "curves.png", title=self.config.model.arch)
        _LOGGER.info(
            "best val top-1 %.3f %% in epoch %d; checkpoints, metrics.csv and curves.png are in %s",
            self.state.best_top1,
            self.state.best_epoch,
            folder,
        )

    def run(self) -> None:
        """Trains to the end of the schedule."""
        try:
            self._run()
        finally:
            self.display.close()
            self.records.close()

    def _run(self) -> None:
        steps_per_epoch = self.train_set.steps_per_epoch
        batches = self.train_set.batches()
        self.train_step.set_train(True)
        self.clock.restart()
        for _ in range(self.state.step, len(self.lr_schedule)):
            self._one_step(self._next_batch(batches))
            if self.state.step % self.config.train.log_interval == 0:
                self._log()
            if self.state.step % steps_per_epoch == 0:
                self._end_epoch(self.state.step // steps_per_epoch)

    def _next_batch(self, batches: Iterator[Batch]) -> Batch:
        start = time.perf_counter()
        batch = next(batches)
        self.clock.add_wait(time.perf_counter() - start)
        return batch

    def _one_step(self, batch: Batch) -> None:
        lr = Tensor(self.lr_schedule[self.state.step], ms.float32)
        outputs = self.train_step(Tensor(batch.image), Tensor(batch.label), Tensor(batch.mix), lr)
        # Reading them here would make the host wait for the device at every step.
        self._unread.append(outputs)
        self.state.step += 1
        self.display.step()

    def _log(self) -> None:
        values = np.array([[float(x.asnumpy()) for x in outputs] for outputs in self._unread])
        self._unread.clear()
        times = self.clock.read()
        loss, grad_norm = float(values[:, 0].mean()), float(values[-1, 1])
        skipped, scale = int((values[:, 2] == 0).sum()), float(values[-1, 3])
        lr = float(self.lr_schedule[self.state.step - 1])
        speed = self.config.data.batch_size / times.seconds_per_step
        self.records.write(
            step=self.state.step,
            epoch=round(self._epochs_done(), 6),
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            loss_scale=scale,
            images_per_s=round(speed, 2),
            data_wait=round(times.data_wait, 4),
        )
        shown = (
            f"loss {loss:.4f}  lr {lr:.3e}  norm {grad_norm:.3g}  scale {scale:g}  "
            f"{speed:.0f} images/s  data wait {times.data_wait:.0%}"
        )
        if skipped:
            shown += f"  {skipped} steps skipped (gradient not finite)"
        self._show(shown, times)

    def _show(self, shown: str, times: StepTimes) -> None:
        self.display.interval(self.state.step, self._epochs_done(), shown, times.seconds_per_step)

    def _epochs_done(self) -> float:
        return self.state.step / self.train_set.steps_per_epoch

    def _end_epoch(self, epoch: int) -> None:
        every = self.config.train.eval_every
        is_last = self.state.step == len(self.lr_schedule)
        result = self._evaluate(epoch) if is_last or (every and epoch % every == 0) else None
        is_best = result is not None and result.top1 > self.state.best_top1
        if result is not None and is_best:
            self.state.best_top1, self.state.best_epoch = result.top1, epoch
        self.save(epoch=epoch, is_best=is_best)
        self.clock.restart()

    def _evaluate(self, epoch: int) -> EvalResult:
        result = evaluate(self.eval_net, self.val_set)
        self.train_step.set_train(True)
        self.records.write(
            step=self.state.step,
            epoch=epoch,
            val_loss=result.loss,
            top1=result.top1,
            top5=result.top5,
        )
        self.display.message(
            f"epoch {epoch}: val top-1 {result.top1:.3f} %  top-5 {result.top5:.3f} %  "
            f"loss {result.loss:.4f}  ({result.images} images)"
        )
        return result

    def save(self, *, epoch: Optional[int], is_best: bool) -> None:
        """Saves the state as it is between two steps."""
        self.checkpoints.save(
            self.train_step.get_parameters(),
            self.state.as_meta(self.config),
            epoch=epoch,
            is_best=is_best,
        )
