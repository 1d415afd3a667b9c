"""The training loop: explicit, one step at a time."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Iterator, List, Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..args import Config
from ..checkpoints.checkpoint import save_checkpoint
from ..data.dataset import Batch, ImageDataset
from ..data.image_sums import to_text
from ..errors import StoppedBySignal, StoppedReading, TrainingFailed
from ..runs.folder import CheckpointFolder
from ..runs.progress import LongWait, Pace, ProgressDisplay, StepClock
from ..runs.records import Records
from ..runs.scores import SCORES
from ..runtime.collectives import StopVote, gather_from_ranks, sum_over_ranks
from ..runtime.ranks import ALONE, World
from ..runtime.stop_signal import StopSignal
from . import forensics
from .announcement import describe_run
from .epoch_scores import score_epoch
from .evaluate import EvalNet
from .run_report import RunReport
from .run_state import RunState
from .step_outputs import OutputBuffer, StepOutputs
from .train_one_step import TrainOneStep

_LOGGER = logging.getLogger(__name__)
# A reason to stop beside the numbers of signals.
_LOST_WORKERS = 255


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
        records: Optional[Records],
        state: RunState,
        world: World = ALONE,
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
        self.world = world
        self.clock = StepClock()
        self.display = ProgressDisplay(
            len(lr_schedule), first_step=state.step, has_bar=world.is_main
        )
        self.pace = Pace()
        self.long_wait = LongWait()
        self.report = RunReport(
            config,
            checkpoints.folder,
            total_steps=len(lr_schedule),
            class_names=train_set.class_names,
            val_images=val_set.num_samples,
        )
        self._outputs = OutputBuffer()
        self._last_batches: List[Batch] = []
        self._has_trained = False
        self._saved_step = self._digested_step = state.step

    def announce(self) -> None:
        """Says what is about to run."""
        if self.world.size > 1:
            _LOGGER.info("rank %d of %d", self.world.rank, self.world.size)
        self.report.header = describe_run(
            self.config,
            self.eval_net.network,
            (self.train_set, self.val_set),
            self.lr_schedule,
            world_size=self.world.size,
        )
        for line in self.report.header:
            _LOGGER.info("%s", line)
        if self._has_stopped():
            _LOGGER.info("this run has %s: nothing is left to do", self._stopped_early())
        elif self.state.step >= len(self.lr_schedule):
            _LOGGER.info(
                "this run is finished: nothing is left to do: %d steps are done", self.state.step
            )
        else:
            _LOGGER.info("the first step includes the compilation of the graph")

    def conclude(self) -> None:
        """Writes the run's page and says where everything is."""
        if not self.world.is_main:
            return
        self._write_report()
        if self.state.best_epoch:
            _LOGGER.info("best val %s (%s weights)", self._best(), self.config.train.best_by)
        folder = self.checkpoints.folder
        _LOGGER.info("checkpoints, metrics.csv and report.html are in %s", folder)

    def run(self) -> None:
        """Trains to the end of the schedule.

        Raises:
            StoppedBySignal: a signal came; `last.ckpt` holds the step it came in, or where that
                waited for an image that did not come, the one before.
            TrainingFailed: too many overflows in a row, a loss that is not finite, or worker
                processes that have died; in the last case `last.ckpt` is as of a signal.
        """
        with self.display, StopSignal() as stop:
            try:
                with contextlib.closing(self.train_set.batches()) as batches:
                    self._run(batches, stop)
            except StoppedReading as reading:
                assert stop.received is not None
                self._stop_without_images(stop.received, reading)
            finally:
                self.close_records()

    def _run(self, batches: Iterator[Batch], stop: StopSignal) -> None:
        save_steps = self.config.train.save_steps
        self.train_step.set_train(True)
        vote = StopVote(self.world)
        self.clock.restart()
        for _ in range(self.state.step, len(self.lr_schedule)):
            if self._has_stopped():
                break
            self.one_step(batches)
            stopped_by, step = vote.agreed(self._reason_to_stop(stop)), self.state.step
            is_epoch_end = step % self.train_set.steps_per_epoch == 0
            is_saved = is_epoch_end or stopped_by or (save_steps and step % save_steps == 0)
            # A run that goes on from what is saved writes the rows this one would have written.
            if is_saved or step % self.config.train.log_interval == 0:
                self.log()
            elif self.state.overflows or self._outputs.waiting >= self.config.train.max_overflows:
                self.read_outputs()
            self._check_overflows()
            if is_epoch_end:
                self._end_epoch(step // self.train_set.steps_per_epoch)
                stopped_by = stopped_by or vote.agreed(self._reason_to_stop(stop))
            elif is_saved:
                self.save(epoch=None, is_best=False, images=self.images_seen())
            if stopped_by:
                self._stop(stopped_by)

    def _reason_to_stop(self, stop: StopSignal) -> Optional[int]:
        return stop.received or (_LOST_WORKERS if self._lost_workers() else None)

    def _lost_workers(self) -> Optional[str]:
        return self.train_set.lost or self.val_set.lost

    def _stop(self, reason: int) -> None:
        """Ends the run, which has been saved.

        Raises:
            StoppedBySignal, TrainingFailed: as of `run`.
        """
        saved = self._saved()
        if reason != _LOST_WORKERS:
            self.display.message(f"signal {reason}: {saved}")
        # Launchers end all ranks when one has ended: none may before rank 0 has saved.
        gather_from_ranks(np.zeros(()), self.world)
        if reason != _LOST_WORKERS:
            raise StoppedBySignal(reason, is_alone=self.world.size == 1)
        raise TrainingFailed(f"{self._lost_workers() or 'another rank has lost a worker'}; {saved}")

    def _stop_without_images(self, number: int, reading: StoppedReading) -> None:
        """Ends the run as of its last whole step. Nothing is asked of other ranks, whose step waits
        for this one.

        Raises:
            StoppedBySignal: always.
        """
        # The launcher looks for "gave up": the other ranks do not end by themselves.
        what = "gave up its next step"
        if not self.world.is_main:
            what += ", which all ranks wait for; unsaved since the last checkpoint"
        _LOGGER.error("signal %d: %s: %s", number, what, reading)
        ended = StoppedBySignal(number, is_alone=True)
        if not self.world.is_main:
            raise ended
        if self.state.step == self._saved_step:
            self.display.message(f"signal {number}: nothing new to save at step {self.state.step}")
        else:
            if self._outputs.waiting:
                self.read_outputs()
            if self.world.size == 1 and self._outputs.has_read:
                self.log()
            self.save(epoch=None, is_best=False)
            self.display.message(f"signal {number}: {self._saved()}")
        raise ended

    def _saved(self) -> str:
        last, step = self.checkpoints.last, self.state.step
        return f"saved {last} at step {step}; continue with --resume auto"

    def one_step(self, batches: Iterator[Batch]) -> None:
        """Takes the batches of one step and runs it; nothing is read from the device."""
        lr = Tensor(self.lr_schedule[self.state.step], ms.float32)
        count, outputs = self.config.train.accumulation_step, []
        # All before the first is used: a run that gives one up saves no half of a step.
        self._last_batches = [self._next_batch(batches) for _ in range(count)]
        for batch in self._last_batches:
            tensors = map(Tensor.from_numpy, batch)  # no copy on the host
            outputs.append(StepOutputs(*self.train_step(*tensors, lr)))
        # Reading them here would make the host wait for the device at every step.
        self._outputs.add(outputs)
        self._has_trained = True
        self.state.step += 1
        self.display.step()

    def read_outputs(self) -> float:
        """Waits for the steps that have been started and counts their overflows.

        Returns:
            The loss of the last of them.
        """
        outputs = self._outputs.read()
        for is_finite in outputs.of_updates().is_finite:
            self.state.overflows = 0 if is_finite else self.state.overflows + 1
        return float(outputs.loss[-1].mean())

    def _next_batch(self, batches: Iterator[Batch]) -> Batch:
        start = time.perf_counter()
        batch = next(batches, None)
        self.clock.add_wait(time.perf_counter() - start)
        if self.train_set.lost and not self._has_trained:
            raise TrainingFailed(self.train_set.lost)  # before the graph is compiled
        if batch is None:
            raise TrainingFailed(
                f"step {self.state.step + 1}: the images ended before the schedule's "
                f"{len(self.lr_schedule)} steps"
            )
        return batch

    def log(self) -> None:
        """Records and shows what has been done since it was called last."""
        if self._outputs.waiting:
            self.read_outputs()
        outputs = self._outputs.take()
        updates = outputs.of_updates()
        times = self.clock.read()
        # The mean alone, whatever the number of steps: every shape of a message is compiled.
        loss = sum_over_ranks(outputs.loss.mean(), self.world) / self.world.size
        speed = self.config.data.batch_size * self.world.size / times.seconds_per_batch
        row = {
            "step": self.state.step,
            "epoch": round(self._epochs_done(), 6),
            "loss": float(loss),
            "lr": float(self.lr_schedule[self.state.step - 1]),
            "grad_norm": float(updates.grad_norm[-1]),
            "loss_scale": float(updates.loss_scale[-1]),
            "images_per_s": round(speed, 2),
            "data_wait": round(times.data_wait, 4),
        }
        self._record(**row)
        shown = (
            f"loss {row['loss']:.4f}  lr {row['lr']:.3e}  norm {row['grad_norm']:.3g}  "
            f"scale {row['loss_scale']:g}  {speed:.0f} images/s  data wait {times.data_wait:.0%}"
        )
        skipped = int((updates.is_finite == 0).sum())
        if skipped:
            shown += f"  {skipped} steps skipped (gradient not finite)"
        seconds = times.seconds_per_batch * self.config.train.accumulation_step
        self.display.interval(self.state.step, self._epochs_done(), shown, seconds)
        estimate = self.pace.add(
            len(outputs.loss), seconds, left=len(self.lr_schedule) - self.state.step
        )
        if estimate:
            self.display.message(estimate)
        if self.long_wait.add(times.data_wait, seconds * len(outputs.loss)):
            advice = self.train_set.slow_images.advice(self.config, times.data_wait)
            self.display.message(advice)
        self.train_set.slow_images.forget()
        self._scale = row["loss_scale"]

    def _check_overflows(self) -> None:
        if self.state.overflows < self.config.train.max_overflows:
            return
        if self._outputs.has_read:
            self.log()
        lr, scale = float(self.lr_schedule[self.state.step - 1]), self._scale
        suspect = forensics.find_suspect(self.train_step, self._last_batches, scale)
        folder = self.checkpoints.folder
        command = f"the command in {folder / forensics.REPORT}"
        if self._is_first_with(suspect.finding.overflowed):
            record = self.state.as_record(self.config, self.world, self.train_set)
            parameters = self.train_step.saved_parameters()
            save_checkpoint(folder / forensics.CHECKPOINT, parameters, record.as_json())
            command = forensics.write_report(
                folder, suspect, step=self.state.step, lr=lr, scale=scale
            )
        raise TrainingFailed(
            f"step {self.state.step}: the gradient was not finite {self.state.overflows} times in "
            f"a row (lr {lr:g}, loss scale {scale:g}, loss {suspect.finding.loss:g}; first in "
            f"{suspect.finding.place()}); weights are unchanged since; see it again with: "
            f"{command}"
        )

    def _is_first_with(self, is_found: bool) -> bool:
        """Whether this is the lowest rank with a finding; rank 0 when none has one."""
        found = gather_from_ranks(np.array(float(is_found)), self.world)
        return int(found.argmax()) == self.world.rank

    def close_records(self) -> None:
        """Closes metrics.csv where this process writes it."""
        if self.records is not None:
            self.records.close()

    def _record(self, **values: Any) -> None:
        if self.records is not None:
            self.records.write(**values)

    def _record_digest(self, digest: str, images: str) -> None:
        if self._digested_step == self.state.step:
            return  # a save that is tried again
        place = {"step": self.state.step, "epoch": round(self._epochs_done(), 6)}
        self._record(**place, weights=digest, images=images)
        self._digested_step = self.state.step

    def _epochs_done(self) -> float:
        return self.state.step / self.train_set.steps_per_epoch

    def _end_epoch(self, epoch: int) -> None:
        every = self.config.train.eval_every
        is_last, is_best = self.state.step == len(self.lr_schedule), False
        if is_last or (every and epoch % every == 0):
            is_best = self._evaluate(epoch)
            self._write_report()  # before the save, which sends the folder to its URL
        self.save(epoch=epoch, is_best=is_best, images=self.images_seen())
        if self._has_stopped():
            self.display.message(self._stopped_early())
        self.clock.restart()

    def _has_stopped(self) -> bool:
        is_left = self.state.step < len(self.lr_schedule)
        return is_left and self.state.has_stopped(self.config, self.train_set.steps_per_epoch)

    def _stopped_early(self) -> str:
        return (
            f"stopped early: no better score in {self.config.train.early_stop_epochs} epochs "
            f"(early_stop_epochs) than {self._best()}"
        )

    def _best(self) -> str:
        """`top-1 91.250 % in epoch 12`."""
        score, best = SCORES[self.config.train.best_metric], self.state
        value = best.best(self.config.train.best_metric)
        assert value is not None
        return f"{score.title} {score.text(value)} in epoch {best.best_epoch}"

    def _evaluate(self, epoch: int) -> bool:
        """Scores raw and averaged weights; returns whether `best.ckpt` is of this epoch."""
        scores = score_epoch(self.train_step, self.eval_net, self.val_set, self.world)
        self._record(step=self.state.step, epoch=epoch, **scores.row())
        self.display.message(f"epoch {epoch}: val {scores.text()}")
        whose = scores.not_finite()
        if whose:
            self._write_report()
            last = self.checkpoints.last
            saved = f"{last} holds the last state before" if last.exists() else "nothing is saved"
            raise TrainingFailed(
                f"epoch {epoch}: the {whose} is not finite; {saved}; a lower base_lr or amp_level "
                "O0 may cure it"
            )
        train = self.config.train
        return self.state.note_scores(scores.of(train.best_by), epoch, train.best_metric)

    def _write_report(self) -> None:
        if self.world.is_main:
            self.report.write(self.state, has_stopped=self._has_stopped())

    def images_seen(self) -> str:
        """The sums of all ranks' images since the last save; all ranks ask for them.

        Returns:
            `STEP:SUMS`, the step of that save and `to_text`.
        """
        sums = gather_from_ranks(self.train_set.image_sums.take(), self.world)
        text = to_text(np.bitwise_xor.reduce(sums.astype(np.uint32), axis=0))
        return f"{self._saved_step}:{text}"

    def save(self, *, epoch: Optional[int], is_best: bool, images: str = "") -> None:
        """Writes `last.ckpt`, see `CheckpointFolder.save`, and its row; one rank does.

        Args:
            images: of `images_seen`; empty: not known.
        """
        if not self.world.is_main:
            return
        self.checkpoints.save(
            self.train_step.saved_parameters(),
            self.state.as_record(self.config, self.world, self.train_set),
            epoch=epoch,
            is_best=is_best,
            on_digest=lambda digest: self._record_digest(digest, images),
        )
        self._saved_step = self.state.step
