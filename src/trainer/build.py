"""From a Config to the cells that train and evaluate."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from src.args import Config
from src.data.augment.batch_transform import BatchTransform, ImageNormalize
from src.errors import UserError
from src.models.layers.drop_path import seed_drop_paths
from src.models.registry import create_model
from src.tools.amp import LossScale, apply_amp
from src.tools.checkpoint import Checkpoint, load_parameters
from src.tools.criterion import SoftTargetCrossEntropy
from src.tools.optimizer import create_optimizer
from src.trainer.evaluate import EvalNet
from src.trainer.train_one_step import NetWithLoss, TrainOneStep


def build_network(config: Config) -> nn.Cell:
    """The network of the recipe, freshly initialised, under its mixed precision."""
    network = create_model(
        config.model.arch,
        num_classes=config.model.num_classes,
        img_size=config.model.image_size,
        drop_path_rate=config.model.drop_path_rate,
        nonlinearity=config.model.nonlinearity,
        **config.model.model_args,
    )
    apply_amp(network, config.train.amp_level, keep_bn_fp32=config.train.keep_bn_fp32)
    return network


def load_network(network: nn.Cell, checkpoint: Checkpoint, config: Config) -> None:
    """Sets all weights from the file.

    Raises:
        UserError: it holds another architecture, another number of classes or other shapes.
    """
    target = f"arch {config.model.arch} with num_classes {config.model.num_classes}"
    for key in ("arch", "num_classes"):
        here, there = getattr(config.model, key), checkpoint.meta.get(key)
        if there is not None and here != there:
            raise UserError(
                f"checkpoint {checkpoint.describe()} does not fit {target}: {key} is {there!r} in "
                f"the file and {here!r} here; give --{key} {there} or another checkpoint"
            )
    load_parameters(network.get_parameters(), checkpoint, target=target)


def build_train_step(config: Config, network: nn.Cell) -> TrainOneStep:
    """Transform, network, loss, optimizer and loss scale as one cell."""
    train, data = config.train, config.data
    if train.with_ema:
        raise UserError("with_ema True: not available yet; set with_ema: False")
    mixed = train.amp_level != "O0"
    loss_scale = LossScale(
        train.loss_scale if mixed else 1.0,
        dynamic=train.is_dynamic_loss_scale and mixed,
        factor=train.loss_scale_factor,
        window=train.loss_scale_window,
    )
    transform = BatchTransform(
        data.batch_size,
        config.model.image_size,
        num_classes=config.model.num_classes,
        mean=data.mean,
        std=data.std,
        label_smoothing=data.label_smoothing,
    )
    step = Parameter(Tensor(0, ms.int32), name="train.step", requires_grad=False)
    seed_drop_paths(network, seed=train.seed, step=step, batch_size=data.batch_size)
    return TrainOneStep(
        NetWithLoss(transform, network, SoftTargetCrossEntropy()),
        create_optimizer(config.optim, network),
        loss_scale,
        step=step,
        clip_norm=config.optim.clip_global_norm_value,
    )


def build_eval_net(config: Config, network: nn.Cell) -> EvalNet:
    """Normalisation and network, for uint8 images."""
    return EvalNet(ImageNormalize(mean=config.data.mean, std=config.data.std), network)
