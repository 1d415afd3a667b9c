"""`recompute`: the same losses, weights and statistics to the bit, from less memory."""

from __future__ import annotations

from typing import Dict, List, Tuple

import mindspore as ms
import numpy as np
import pytest
import small_networks
from mindspore import Tensor
from model_parity import load_rule_weights

from src.args import parse_args
from src.errors import UserError
from src.kernels import selection
from src.models.layers.activation import Gelu
from src.trainer.build import build_network, build_train_step

BATCH = 8


def run(arch: str, recompute: bool) -> Tuple[List[float], Dict[str, np.ndarray]]:
    """Losses of three steps with all that is drawn, and the state afterwards."""
    given = f"--batch_size {BATCH} --drop_path_rate 0.3 --lr 0.01 --recompute {recompute}"
    config = parse_args([*small_networks.words(arch), *given.split()])
    step = build_train_step(config, load_rule_weights(build_network(config))).set_train(True)
    rng = np.random.default_rng(0)
    images = Tensor(rng.integers(0, 256, (BATCH, 32, 32, 3)).astype(np.uint8))
    labels = Tensor(np.arange(BATCH, dtype=np.int32))
    mix = Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (BATCH, 1)))
    rate = Tensor(0.01, ms.float32)
    losses = [float(step(images, labels, mix, rate)[0].asnumpy()) for _ in range(3)]
    return losses, {p.name: p.asnumpy() for p in step.saved_parameters()}


def same(arch: str) -> None:
    (losses, state), (again, recomputed) = run(arch, False), run(arch, True)
    assert losses == again
    assert len(set(losses)) == 3
    assert list(state) == list(recomputed)
    for name, value in state.items():
        np.testing.assert_array_equal(recomputed[name], value, err_msg=name)


def test_dropout_and_kernels_compute_the_same_again() -> None:
    same("cct_2_3x2_32")


def test_running_statistics_move_once() -> None:
    with selection.using(selection.OFF):
        same("convmixer_768_32")


def test_gelu_keeps_the_product_for_the_gradient_in_training_alone() -> None:
    """Values and gradients of torch; files that are exported hold the form that converters know."""
    torch = pytest.importorskip("torch")
    with selection.using(selection.OFF):
        config = parse_args(small_networks.words("deit_tiny_patch16_224"))
        network = build_network(config)
        build_train_step(config, network)
        plain = Gelu().set_train(True)
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, Gelu)]
    x = np.linspace(-6, 6, 4001, dtype=np.float32)
    values = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    due = torch.nn.functional.gelu(values)
    due.sum().backward()
    product = cells[0].set_train(True)
    assert all(cell.is_product for cell in cells)
    np.testing.assert_allclose(product(Tensor(x)).asnumpy(), due.detach(), atol=1e-6)
    np.testing.assert_allclose(ms.grad(product)(Tensor(x)).asnumpy(), values.grad, atol=1e-6)
    assert (product(Tensor(x)).asnumpy() != plain(Tensor(x)).asnumpy()).any()
    product.set_train(False)
    np.testing.assert_array_equal(product(Tensor(x)).asnumpy(), plain(Tensor(x)).asnumpy())


def test_statement_by_statement_it_is_refused() -> None:
    given = [*small_networks.words("convmixer_768_32"), "--recompute", "True", "--mode", "pynative"]
    config = parse_args(given)
    with pytest.raises(UserError, match=r"mode pynative would move .* give --mode graph"):
        build_train_step(config, build_network(config))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["native", "off"])
@pytest.mark.parametrize("arch", list(small_networks.ARGUMENTS))
def test_every_family_computes_the_same_again(arch: str, kernels: str) -> None:
    library = selection.library() if kernels == selection.NATIVE else None
    with selection.using(kernels, library):
        same(arch)


@pytest.mark.parametrize(("arch", "count"), zip(small_networks.ARGUMENTS, (2, 5, 2, 2, 5)))
def test_the_blocks_are_those_of_the_paper(arch: str, count: int) -> None:
    assert len(build_network(parse_args(small_networks.words(arch))).block_cells()) == count
