"""The rows of metrics.csv as curves in TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict

from ..errors import UserError

# Columns that are the axis.
_AXES = ("step", "epoch")


class TensorBoardEvents:
    """Writes an events file into `folder`; `tensorboard --logdir` shows it.

    Args:
        first_step: what earlier files of the folder hold of later steps is hidden: a resumed run
            does them again.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise UserError(
                "tensorboard True: the package is not installed; pip install tensorboard, or "
                "leave it out: metrics.csv and report.html hold the same"
            ) from error
        self._event, self._summary = event_pb2, summary_pb2
        self._writer = EventFileWriter(str(folder))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(first_step + 1, session_log=start)

    def write(self, values: Dict[str, Any]) -> None:
        """One row of `Records.write`."""
        scalars = [
            self._summary.Summary.Value(tag=name, simple_value=float(value))
            for name, value in values.items()
            if name not in _AXES
        ]
        if not scalars:
            return
        self._add(int(values["step"]), summary=self._summary.Summary(value=scalars))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, **content))
