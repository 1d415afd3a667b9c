"""How much memory a step of a recipe takes on a CPU, told from steps of few images."""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.connection import Connection
from typing import NamedTuple, Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..args import Config, replace
from ..data.augment.random_erasing import BOX_COLUMNS
from ..data.main_guard import require_main_guard
from ..errors import UserError
from ..models.registry import count_macs
from ..runtime.device import setup_device
from ..runtime.memory import Allowance, host_allowance, host_peak, remedies
from ..runtime.stop_signal import ended_by
from .build import build_network, build_train_step

_LOGGER = logging.getLogger(__name__)

# Networks of all families take 0.03 to 0.14 bytes for a multiply-add: less than this, whatever it
# is, fits. So the digits pay for no measurement.
_MOST_BYTES_PER_MAC = 1.0
# Of the allowance: what a measurement may take, and what is too little to measure for.
_SHARE = 0.25
_FEW = 2


class Estimate(NamedTuple):
    """Bytes that a step takes, and the batches it was told from."""

    num_bytes: int
    measured: str


def check_step_fits(config: Config) -> None:
    """Says what a step will take, before it is tried.

    On an accelerator nothing is measured: there the first step itself says at once if it does not
    fit, where a CPU works for minutes, or the system kills the process.

    Raises:
        UserError: more than this process may take.
    """
    allowed = host_allowance()
    if config.run.device_target != "CPU" or allowed is None or not _may_be_large(config, allowed):
        return
    estimate = estimate_step(config, allowed)
    if estimate is None:
        _LOGGER.info("dry run: what memory a step takes could not be measured ahead")
        return
    needs = (
        f"a step of batch_size {config.data.batch_size} takes about "
        f"{estimate.num_bytes / 2**30:.1f} GiB (from {estimate.measured}); {allowed.said_by} "
        f"{allowed.num_bytes / 2**30:.1f} GiB"
    )
    if estimate.num_bytes > allowed.num_bytes:
        raise UserError(f"memory: {needs}; {remedies(config)}")
    _LOGGER.info("dry run: %s", needs)


def _may_be_large(config: Config, allowed: Allowance) -> bool:
    model = config.model
    sizes = {"img_size": model.image_size, "num_classes": model.num_classes}
    macs = count_macs(model.arch, **sizes, **model.model_args)
    most = macs * config.data.batch_size * _MOST_BYTES_PER_MAC
    return config.data.batch_size > 2 * _FEW and most > _SHARE * allowed.num_bytes


def estimate_step(config: Config, allowed: Allowance) -> Optional[Estimate]:
    """From the peaks of two processes that run steps of few images; None: one of them failed.

    The larger batch is what a quarter of the allowance surely has room for.
    """
    require_main_guard()
    few = _peak_of_a_process(config, _FEW)
    if few is None:
        return None
    most_per_image = max(1.0, (few - host_peak()) / _FEW)
    more = int(_SHARE * allowed.num_bytes / most_per_image) // 2 * 2
    more = min(max(more, 2 * _FEW), config.data.batch_size)
    many = _peak_of_a_process(config, more)
    if many is None:
        return None
    per_image = max(0.0, (many - few) / (more - _FEW))
    total = many + per_image * (config.data.batch_size - more)
    return Estimate(int(total), f"steps of {_FEW} and {more} images")


def _peak_of_a_process(config: Config, batch_size: int) -> Optional[int]:
    """Most bytes that a process of its own holds in two steps of `batch_size` images."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(replace(config, batch_size=batch_size), there))
    process.start()
    there.close()
    try:
        peak: int = here.recv()
    except EOFError:  # it has ended without an answer
        return None
    finally:
        here.close()
        if ended_by() is not None:
            process.kill()  # it compiles for longer than anybody waits
        process.join()
    return peak


def _measure(config: Config, pipe: Connection) -> None:
    try:
        setup_device(config.run, seed=config.train.seed)
        config = replace(config, class_weights=None)  # which take no room, and need the data
        step = build_train_step(config, build_network(config)).set_train(True)
        count, side = config.data.batch_size, config.model.image_size
        columns = BOX_COLUMNS * config.data.re_count if config.data.re_prob > 0 else 0
        mix = np.zeros((count, 5 + columns), np.float32)
        mix[:, 0] = 1.0
        image = Tensor(np.zeros((count, side, side, config.model.in_chans), np.uint8))
        inputs = (image, Tensor(np.zeros(count, np.int32)), Tensor(mix), Tensor(0.0, ms.float32))
        for _ in range(2 * config.train.accumulation_step):
            step(*inputs)[0].asnumpy()
        pipe.send(host_peak())
    except Exception:  # the parent tries the step itself, and says why it fails
        _LOGGER.debug("no measurement of memory", exc_info=True)
    finally:
        pipe.close()
