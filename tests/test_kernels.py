"""Every native kernel against torch in float64, called without MindSpore."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any, Callable, List, Sequence, Tuple

import numpy as np
import pytest
from native_call import call, call_status
from torch_oracle import torch

from src.kernels import build
from src.runtime import native_library

if native_library.find_compiler(os.environ) is None:
    pytest.skip("no C++ compiler", allow_module_level=True)

functional = torch.nn.functional


# The widest vectors of this machine, and on x86 those of AVX2 and, slow, of SSE2 alone.
IS_X86 = platform.machine() == "x86_64"
NARROWER = ["haswell", pytest.param("x86-64", marks=pytest.mark.slow)] if IS_X86 else []
PROCESSORS = ["native", *NARROWER]


@pytest.fixture(scope="module", params=PROCESSORS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "native":
        return build.KERNELS.path(os.environ)
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    flags = [flag.replace("=native", f"={request.param}") for flag in build.FLAGS]
    build.KERNELS.compile(native_library.find_compiler(os.environ) or [], flags, path)
    return path


def randoms(*shapes: Tuple[int, ...]) -> List[np.ndarray]:
    rng = np.random.default_rng(sum(sum(shape) for shape in shapes))
    return [rng.normal(0.3, 1.0, shape).astype(np.float32) for shape in shapes]


def expected(
    function: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    dy: np.ndarray,
    dtype: torch.dtype = torch.float64,
) -> Tuple[np.ndarray, ...]:
    """Output and gradients of all `inputs`, by torch."""
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in inputs]
    y = function(*leaves)
    y.backward(torch.tensor(dy, dtype=dtype))
    return (y.detach().numpy(), *[leaf.grad.numpy() for leaf in leaves])


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    if not theirs.size:
        return 0.0
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def assert_close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    error = relative_error(ours, theirs)
    assert error <= tolerance, error


def nhwc(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *rest: function(x.permute(0, 3, 1, 2), *rest).permute(0, 2, 3, 1)


# Batch, height, width, channels, kernel.
MAPS = [
    (2, 14, 14, 32, 7),
    (1, 9, 17, 13, 7),
    (3, 2, 5, 20, 7),
    (2, 1, 1, 8, 9),
    (1, 32, 32, 24, 9),
    (2, 7, 11, 35, 3),
    (1, 2, 9, 16, 3),
    (2, 6, 5, 17, 5),
    (4, 56, 56, 48, 7),
]


@pytest.mark.parametrize("size", MAPS, ids=str)
def test_depthwise_conv(library: Path, size: Tuple[int, ...]) -> None:
    batch, height, width, channels, k = size
    shape = (batch, height, width, channels)
    x, w, b, dy = randoms(shape, (channels, 1, k, k), (channels,), shape)
    conv = nhwc(lambda x, w, b: functional.conv2d(x, w, b, padding=k // 2, groups=channels))
    y, dx, dw, db = expected(conv, (x, w, b), dy)
    assert_close(call(library, "depthwise_conv_forward", (x, w, b), [shape])[0], y)
    assert_close(call(library, "depthwise_conv_backward_input", (dy, w), [shape])[0], dx)
    shapes = [w.shape, b.shape]
    ours = call(library, "depthwise_conv_backward_weight", (dy, x, w), shapes)
    assert_close(ours[0], dw)
    assert_close(ours[1], db)


ROWS = [(5, 7), (1, 1), (3, 50, 96), (2, 197, 197), (700, 33), (2, 9, 9, 16)]


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_layer_norm(library: Path, shape: Tuple[int, ...]) -> None:
    columns = shape[-1]
    x, gamma, beta, dy = randoms(shape, (columns,), (columns,), shape)
    x += 3.0
    epsilon = np.array([1e-6], np.float32)
    layer_norm = lambda x, g, b: functional.layer_norm(x, (columns,), g, b, 1e-6)  # noqa: E731
    y, dx, dgamma, dbeta = expected(layer_norm, (x, gamma, beta), dy)
    assert_close(call(library, "layer_norm_forward", (x, gamma, beta, epsilon), [shape])[0], y)
    if columns == 1:
        return  # the gradient is 0, and all there is of it rounding
    shapes = [shape, (columns,), (columns,)]
    grads = call(library, "layer_norm_backward", (dy, x, gamma, epsilon), shapes)
    for mine, theirs in zip(grads, (dx, dgamma, dbeta)):
        assert_close(mine, theirs)


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_gelu(library: Path, shape: Tuple[int, ...]) -> None:
    x, bias, dy = randoms(shape, shape[-1:], shape)
    x *= 3.0
    y, dx, dbias = expected(lambda x, b: functional.gelu(x + b), (x, bias), dy)
    (ours,) = call(library, "gelu_forward", (x, bias), [shape])
    # The sum x + bias is rounded to float32 before the function is taken of it.
    assert np.abs(ours - y).max() <= 1e-6
    ours_dx, ours_dbias = call(library, "gelu_backward", (dy, x, bias), [shape, bias.shape])
    assert_close(ours_dx, dx)
    assert_close(ours_dbias, dbias)


def test_gelu_on_a_fine_grid(library: Path) -> None:
    x = np.linspace(-40, 40, 400_003).astype(np.float32).reshape(1, -1)
    zero, one = np.zeros(x.size, np.float32), np.ones_like(x)
    y, dx, _ = expected(lambda x, b: functional.gelu(x + b), (x, zero), one)
    (ours,) = call(library, "gelu_forward", (x, zero), [x.shape])
    assert (np.abs(ours - y) <= 1e-6 + 1e-7 * np.abs(y)).all()
    grad, _ = call(library, "gelu_backward", (one, x, zero), [x.shape, zero.shape])
    assert np.abs(grad - dx).max() <= 1e-6


# Shape of the input, outputs: odd ones, one of each, fewer rows than a tile, several blocks of the
# depth, several strips of rows, far more columns than rows, many samples.
LINEARS = [
    ((5, 7), 9),
    ((1, 1), 1),
    ((2, 2, 3, 16), 33),
    ((3, 50, 801), 50),
    ((1000, 20), 34),
    ((7, 400), 1003),
    ((3101, 50), 70),
]


@pytest.mark.parametrize(("shape", "out"), LINEARS, ids=str)
def test_linear(library: Path, shape: Tuple[int, ...], out: int) -> None:
    x, weight, bias, dy = randoms(shape, (out, shape[-1]), (out,), (*shape[:-1], out))
    y, *grads = expected(functional.linear, (x, weight, bias), dy)
    assert_close(call(library, "linear_forward", (x, weight, bias), [dy.shape])[0], y)
    shapes = [x.shape, weight.shape, bias.shape]
    for mine, theirs in zip(call(library, "linear_backward", (dy, x, weight), shapes), grads):
        assert_close(mine, theirs)


# Shape of the input, channels of the hidden layer, outputs; the last ones are computed in 3 parts.
MLPS = [((5, 7), 9, 3), ((1, 1), 1, 1), ((2, 197, 64), 130, 65), ((3, 9, 11), 800, 4)]
MLPS += [((1100, 3), 8200, 2), ((2900, 17), 4096, 20)]


@pytest.mark.parametrize(("shape", "hidden", "out"), MLPS, ids=str)
def test_mlp(library: Path, shape: Tuple[int, ...], hidden: int, out: int) -> None:
    sizes = (hidden, shape[-1]), (hidden,), (out, hidden), (out,), (*shape[:-1], out)
    x, weight1, bias1, weight2, bias2, dy = randoms(shape, *sizes)
    weights = (weight1, bias1, weight2, bias2)
    linear = functional.linear
    mlp = lambda x, w, b, v, c: linear(functional.gelu(linear(x, w, b)), v, c)  # noqa: E731
    y, *grads = expected(mlp, (x, *weights), dy)
    before = (*shape[:-1], hidden)
    ours, product = call(library, "mlp_forward", (x, *weights), [dy.shape, before])
    assert_close(ours, y)
    assert_close(product, x.astype(np.float64) @ weight1.T.astype(np.float64))
    inputs, shapes = (dy, product, x, *weights[:3]), [a.shape for a in (x, *weights)]
    for mine, theirs in zip(call(library, "mlp_backward", inputs, shapes), grads):
        assert_close(mine, theirs)


# Batch, heads, queries, keys, channels of a head: odd ones, one of each, several chunks of queries,
# those of DeiT-S.
HEADS = [(2, 3, 5, 5, 7), (1, 1, 1, 1, 1), (2, 2, 230, 230, 16), (1, 6, 197, 197, 64)]
OTHERS = [(2, 3, 11, 4, 5), (1, 1, 1, 9, 2), (1, 2, 400, 49, 64)]


def heads_of(x: Any, parts: int, heads: int) -> Any:
    """(B, N, p h d) -> (p, B, h, N, d)."""
    batch, tokens, channels = x.shape
    x = x.reshape(batch, tokens, parts, heads, channels // (parts * heads))
    return x.permute(2, 0, 3, 1, 4)


def attention(q: Any, k: Any, v: Any, kept: Any = 1.0) -> Any:
    """By the formula: torch's own function has its dropout inside."""
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) * kept
    return (weights @ v).transpose(1, 2).flatten(2)


NO_DROPOUT = np.zeros(1, np.float32), np.ones(1, np.float32)


@pytest.mark.parametrize("sizes", HEADS, ids=str)
def test_self_attention(library: Path, sizes: Tuple[int, ...]) -> None:
    batch, heads, tokens, _, size = sizes
    shape = (batch, tokens, heads * size)
    qkv, dy = randoms((batch, tokens, 3 * heads * size), shape)
    y, dqkv = expected(lambda x: attention(*heads_of(x, 3, heads)), (qkv,), dy)
    inputs = (np.array([heads]), qkv, *NO_DROPOUT)
    assert_close(call(library, "self_attention_forward", inputs, [shape])[0], y)
    (ours,) = call(library, "self_attention_backward", (dy, *inputs), [qkv.shape])
    assert_close(ours, dqkv)


@pytest.mark.parametrize("sizes", OTHERS, ids=str)
def test_cross_attention(library: Path, sizes: Tuple[int, ...]) -> None:
    batch, heads, tokens, keys, size = sizes
    shape = (batch, tokens, heads * size)
    q, kv, dy = randoms(shape, (batch, keys, 2 * heads * size), shape)
    function = lambda q, kv: attention(*heads_of(q, 1, heads), *heads_of(kv, 2, heads))  # noqa: E731
    y, dq, dkv = expected(function, (q, kv), dy)
    inputs = (np.array([heads]), q, kv)
    assert_close(call(library, "cross_attention_forward", inputs, [shape])[0], y)
    maps = (inputs[0], q[:, :, None], kv[:, None])
    (of_maps,) = call(library, "cross_attention_forward", maps, [maps[1].shape])
    assert_close(of_maps[:, :, 0], y)
    ours = call(library, "cross_attention_backward", (dy, *inputs), [q.shape, kv.shape])
    assert_close(ours[0], dq)
    assert_close(ours[1], dkv)


def test_attention_drops_what_the_table_says(library: Path) -> None:
    """The keys are hashed here by Python's whole numbers, which do not overflow."""

    def absorb(state: int, key: int) -> int:
        return (pow(state + key, 3, 46337) + 12345) % 46337

    batch, heads, tokens, size = 2, 3, 101, 4
    shape = (batch, tokens, heads * size)
    qkv, dy = randoms((batch, tokens, 3 * heads * size), shape)
    rng = np.random.default_rng(0)
    kept = np.tile(rng.integers(0, 2, 46337) * 1.25, 2).astype(np.float32)
    layer, *samples = keys = [123, 46336, 0]
    columns = np.array([absorb(absorb(layer, j), 1) for j in range(tokens)])
    rows = [[absorb(absorb(s, i), 0) for i in range(heads * tokens)] for s in samples]
    factors = kept[np.array(rows).reshape(batch, heads, tokens, 1) + columns]
    assert 0.4 < (factors == 0).mean() < 0.6
    dropping = lambda x: attention(*heads_of(x, 3, heads), torch.tensor(factors))  # noqa: E731
    y, dqkv = expected(dropping, (qkv,), dy)
    inputs = (np.array([heads]), qkv, np.array(keys), kept)
    assert_close(call(library, "self_attention_forward", inputs, [shape])[0], y)
    (ours,) = call(library, "self_attention_backward", (dy, *inputs), [qkv.shape])
    assert_close(ours, dqkv)


# Of a network: scalars, vectors, and a tensor that several threads share.
WEIGHTS = [(), (5,), (3, 4, 2, 2), (1, 1), (200, 501)]


def test_global_norm(library: Path) -> None:
    tensors = randoms(*WEIGHTS)
    norm = np.sqrt(sum(np.square(x.astype(np.float64)).sum() for x in tensors))
    assert call(library, "global_norm", tensors, [(1,)])[0] == pytest.approx(norm, rel=1e-6)
    for bad in (np.nan, np.inf, -np.inf):
        tensors[1][3] = bad
        assert not np.isfinite(call(library, "global_norm", tensors, [(1,)])[0])


def test_adamw(library: Path) -> None:
    decays, scales = [0, 1, 1, 0, 1], [1.0, 0.5, 0.25, 1.0, 2.0]
    beta, eps, decay = (0.8, 0.95), 1e-3, 0.3
    weights = randoms(*WEIGHTS)
    moments = [[np.zeros_like(x) for x in weights] for _ in range(2)]
    leaves = [torch.nn.Parameter(torch.tensor(x).double()) for x in weights]
    groups = [
        {"params": [leaf], "weight_decay": decay * flag} for leaf, flag in zip(leaves, decays)
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=beta, eps=eps)
    for step in range(1, 6):
        grads = [0.1 * step * x + np.float32(1) for x in randoms(*WEIGHTS)]
        for group, leaf, scale, grad in zip(reference.param_groups, leaves, scales, grads):
            group["lr"], leaf.grad = 0.01 * step * scale, torch.tensor(grad).double()
        reference.step()
        corrections = 1 - beta[0] ** step, np.sqrt(1 - beta[1] ** step)
        settings = np.array([0.01 * step, *beta, eps, *corrections, decay])
        arrays = [settings, np.array(decays), np.array(scales), *weights, *moments[0], *moments[1]]
        (rate,) = call(library, "adamw", [*arrays, *grads], [(1,)])
        assert rate == np.float32(0.01 * step)
    for mine, theirs in zip(weights, leaves):
        assert_close(mine, theirs.detach().numpy())


@pytest.mark.parametrize("shape", [(3, 50, 96), (5, 7), (2, 9, 9, 16), (4, 60, 60, 11)], ids=str)
def test_residual(library: Path, shape: Tuple[int, ...]) -> None:
    x, branch, gamma, keep, dy = randoms(shape, shape, shape[-1:], shape[:1], shape)
    per_sample = keep.reshape(-1, *[1] * (len(shape) - 1))
    kept = torch.tensor(per_sample, dtype=torch.float64)
    function = lambda x, h, g: x + h * g * kept  # noqa: E731
    y, _, dbranch, dgamma = expected(function, (x, branch, gamma), dy)
    assert_close(call(library, "residual_forward", (x, branch, gamma, keep), [shape])[0], y)
    ours = call(library, "residual_backward", (dy, branch, gamma, keep), [shape, gamma.shape])
    assert_close(ours[0], dbranch)
    assert_close(ours[1], dgamma)
    y, _, dbranch = expected(lambda x, h: x + h * kept, (x, branch), dy)
    assert_close(call(library, "add_kept_forward", (x, branch, keep), [shape])[0], y)
    assert_close(call(library, "add_kept_backward", (dy, keep), [shape])[0], dbranch)


# Blocks, batch, height, width, channels, kernel.
CONV_MIXERS = [(1, 2, 9, 8, 17, 3), (3, 3, 7, 7, 32, 9), (2, 1, 5, 2, 6, 5)]


class Rounded(torch.autograd.Function):
    """A number of float64 as float32 might keep it, and its gradient: off by up to half a unit."""

    @staticmethod
    def forward(_: Any, x: Any) -> Any:
        return x * (1 + 2**-24 * (2 * torch.rand_like(x) - 1))

    @staticmethod
    def backward(_: Any, grad: Any) -> Any:
        return grad * (1 + 2**-24 * (2 * torch.rand_like(grad) - 1))


class ConvMixer:
    """Blocks of ConvMixer by torch, and what their norms were of."""

    def __init__(self, activation: str, keep: np.ndarray) -> None:
        self.activation = getattr(functional, activation)
        self.keep = torch.tensor(keep, dtype=torch.float64)
        self.normed: List[Any] = []
        # Of every map that the kernels keep or pass on in float32.
        self.kept: Callable[[Any], Any] = lambda x: x

    def norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        rows = self.kept(self.activation(x).reshape(-1, x.shape[-1]))
        self.normed.append(rows.detach())
        y = functional.batch_norm(rows, None, None, gamma, beta, True, 0.0, 1e-5)
        return self.kept(y.reshape(x.shape))

    def conv(self, x: Any, weight: Any, bias: Any) -> Any:
        options = {"padding": weight.shape[-1] // 2, "groups": len(weight) // weight.shape[1]}
        return self.kept(nhwc(lambda x: functional.conv2d(x, weight, bias, **options))(x))

    def __call__(self, x: Any, *weights: Any) -> Any:
        self.normed.clear()
        x = self.norm(x, *weights[:2])
        for block, keep in enumerate(self.keep):
            w, b, g, h, v, c, i, j = weights[2 + 8 * block : 10 + 8 * block]
            branch = keep.reshape(-1, 1, 1, 1) * self.norm(self.conv(x, w, b), g, h)
            x = self.norm(self.conv(self.kept(x + branch), v, c), i, j)
        return x


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("size", CONV_MIXERS, ids=str)
def test_conv_mixer_blocks(library: Path, activation: str, size: Tuple[int, ...]) -> None:
    depth, batch, height, width, channels, k = size
    shape, c = (batch, height, width, channels), (channels,)
    block_shapes = [(channels, 1, k, k), c, c, c, (channels, channels, 1, 1), c, c, c]
    x, dy, *weights = randoms(shape, shape, c, c, *block_shapes * depth)
    keep = np.resize(np.array([1.25, 0.0, 1.0], np.float32), (depth, batch))
    network = ConvMixer(activation, keep)
    y, *grads = expected(network, (x, *weights), dy)
    epsilon, statistics_shape = np.array([1e-5]), (4 * depth + 2, channels)
    name, maps = f"{activation}_conv_mixer_blocks", (depth, *shape)
    ours, convolved, products, statistics = call(
        library,
        f"{name}_forward",
        (epsilon, x, keep, *weights),
        [shape, maps, maps, statistics_shape],
    )
    assert_close(ours, y)
    for mean, variance, rows in zip(statistics[::2], statistics[1::2], network.normed):
        assert_close(mean, rows.mean(0).numpy())
        assert_close(variance, rows.var(0, correction=0).numpy())
    inputs = (epsilon, x, keep, dy, convolved, products, statistics, *weights)
    found = call(library, f"{name}_backward", inputs, [array.shape for array in (x, *weights)])
    # Where much cancels, rounding what is kept costs up to 3e-5 by itself; the sums round as well.
    torch.manual_seed(0)
    network.kept = Rounded.apply
    draws = [expected(network, (x, *weights), dy)[1:] for _ in range(4)]
    for mine, theirs, *rounded in zip(found, grads, *draws):
        assert_close(mine, theirs, max(2e-5, 4 * max(relative_error(g, theirs) for g in rounded)))


@pytest.mark.parametrize("shape", [(2, 3, 4, 17), (1, 5), (0, 7)], ids=str)
def test_running_statistics(library: Path, shape: Tuple[int, ...]) -> None:
    channels, norms = shape[-1], 3
    x = np.zeros(shape, np.float32)
    batches = randoms(*[(math.prod(shape[:-1]), channels)] * norms)
    running = randoms(*[(channels,)] * 2 * norms)
    theirs = [torch.tensor(values, dtype=torch.float64) for values in running]
    statistics = np.zeros((2 * norms, channels), np.float32)
    for i, rows in enumerate(batches):
        if len(rows):
            statistics[2 * i : 2 * i + 2] = rows.mean(0), rows.var(0)
        mean, variance = theirs[2 * i : 2 * i + 2]
        if len(rows) > 1:
            rows64 = torch.tensor(rows, dtype=torch.float64)
            functional.batch_norm(rows64, mean, variance, training=True, momentum=0.25)
        elif len(rows):  # torch refuses; the variance of one row counts as it is
            mean.lerp_(torch.tensor(rows[0], dtype=torch.float64), 0.25)
            variance.mul_(0.75)
    call(library, "follow_statistics", (np.array([0.25]), x, statistics, *running), [(1,)])
    for mine, expected_values in zip(running, theirs):
        assert_close(mine, expected_values.numpy())


def test_a_snapshot_brings_everything_back(library: Path) -> None:
    tensors = randoms((7,), (), (2, 0), (3, 5))
    before = [x.copy() for x in tensors]
    (kept,) = call(library, "keep", tensors, [(23,)])
    assert (kept == np.concatenate([x.ravel() for x in before])).all()
    for x in tensors:
        x.fill(np.nan)
    call(library, "put_back", (kept, *tensors), [(1,)])
    for mine, theirs in zip(tensors, before):
        assert (mine == theirs).all()


@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_running_norm(library: Path, activation: str, shape: Tuple[int, ...]) -> None:
    column = shape[-1:]
    x, gamma, beta, mean, variance, dy = randoms(shape, *[column] * 4, shape)
    variance = np.abs(variance) + 0.1
    active = getattr(functional, activation)

    def norm(x: Any, gamma: Any, beta: Any) -> Any:
        rows = active(x).reshape(-1, *column)
        running = (torch.tensor(statistic, dtype=x.dtype) for statistic in (mean, variance))
        return functional.batch_norm(rows, *running, gamma, beta, eps=1e-5).reshape(shape)

    y, *grads = expected(norm, (x, gamma, beta), dy)
    settings = (mean, variance, np.array([1e-5]))
    name = f"{activation}_running_norm"
    assert_close(call(library, f"{name}_forward", (x, gamma, beta, *settings), [shape])[0], y)
    shapes = [shape, column, column]
    ours = call(library, f"{name}_backward", (dy, x, gamma, *settings), shapes)
    for mine, theirs in zip(ours, grads):
        assert_close(mine, theirs)


@pytest.mark.parametrize(
    "shape", [(2, 9, 12, 5), (1, 1, 1, 3), (3, 32, 32, 64), (2, 2, 7, 33), (1, 16, 16, 16)]
)
def test_order_of_axes(library: Path, shape: Tuple[int, ...]) -> None:
    (x,) = randoms(shape)
    first = np.moveaxis(x, 3, 1)
    (ours,) = call(library, "to_channels_first", (x,), [first.shape])
    np.testing.assert_array_equal(ours, first)
    (ours,) = call(library, "to_channels_last", (first,), [shape])
    np.testing.assert_array_equal(ours, x)


@pytest.mark.parametrize("shape", [(2, 9, 12, 5), (1, 1, 1, 1), (3, 70, 32, 32), (2, 2, 7, 33)])
def test_mean_of_maps(library: Path, shape: Tuple[int, ...]) -> None:
    x, dy = randoms(shape, shape[:2])
    y, dx = expected(lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1), (x,), dy)
    assert_close(call(library, "mean_of_maps_forward", (x,), [dy.shape])[0], y)
    assert_close(call(library, "mean_of_maps_backward", (dy, x), [shape])[0], dx)


def test_normalized_images(library: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    centre, scale = np.array([110, 120, 130.5]), np.array([0.017, 0.016, 0.015])
    inputs = (codes, centre.reshape(1, 3, 1, 1), scale.reshape(1, 3, 1, 1))
    (ours,) = call(library, "normalize_images", inputs, [(3, 3, 50, 70)])
    theirs = np.moveaxis((codes - centre) * scale, 3, 1)
    assert_close(ours, theirs, 1e-7)


def test_mixed_images(library: Path) -> None:
    """No boxes, boxes of a colour, of noise; edges outside, empty ones, overlapping ones."""
    rng = np.random.default_rng(1)
    batch, height, width = 3, 20, 33
    codes = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    centre, scale = np.array([110, 120, 130.5]), np.array([0.017, 0.016, 0.015])
    noise, empty = rng.normal(size=256).astype(np.float32), np.zeros(1, np.float32)
    mix = np.array([[0.3, 0, 0, 0, 0], [0.9, 4, 2, 40, 9], [0.5, 7, 7, 7, 9]], np.float32)
    boxes = np.zeros((batch, 2, 7), np.float32)
    boxes[..., 4:] = rng.normal(size=(batch, 2, 3))
    boxes[0, :, :4] = [[-3, 2, 9, 50], [5, 10, 30, 15]]
    boxes[2, 1, :4] = [0, 0, 40, 1]
    rows, columns = np.mgrid[:height, :width]

    def inside(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)

    for count, table in ((0, empty), (2, empty), (2, noise)):
        images = np.moveaxis((codes - centre) * scale, 3, 1)
        for image, code, draws in zip(images, codes, boxes[:, :count]):
            for box in draws:
                fill = np.moveaxis(table[code], 2, 0) if table.size > 1 else box[4:, None, None]
                image[...] = np.where(inside(*box[:4]), fill, image)
        expected = []
        for image, partner, (lam, *box) in zip(images, images[::-1], mix.astype(np.float64)):
            mixed = lam * image + (1 - lam) * partner
            expected.append(np.where(inside(*box), partner, image) if inside(*box).any() else mixed)
        draws = np.concatenate([mix, boxes[:, :count].reshape(batch, -1)], axis=1)
        inputs = (codes, centre.reshape(1, 3, 1, 1), scale.reshape(1, 3, 1, 1), table, draws)
        (ours,) = call(library, "mix_images", inputs, [(batch, 3, height, width)])
        assert_close(ours, np.stack(expected), 1e-6)


# Map (B, H, W, C), kernel, stride, padding, channels of the output: some in several parts; from 64
# on the fast one.
WINDOWS = [
    ((2, 15, 13, 5), 7, 2, 3, 9),
    ((3, 8, 8, 16), 3, 1, 1, 9),
    ((2, 12, 9, 3), 4, 4, 0, 9),
    ((1, 2, 3, 4), 7, 2, 3, 9),
    ((2, 40, 40, 20), 3, 1, 1, 9),
    ((5, 64, 66, 10), 7, 1, 3, 9),
    ((33, 9, 8, 3), 3, 1, 1, 64),
    ((2, 14, 14, 64), 3, 1, 1, 128),
    ((5, 15, 22, 96), 3, 1, 1, 64),
    ((7, 11, 9, 32), 3, 1, 0, 96),
    ((1, 3, 1, 64), 3, 1, 2, 32),
    ((1, 1, 2, 32), 3, 1, 1, 64),
    ((2, 8, 8, 32), 3, 2, 1, 32),
]


@pytest.mark.parametrize(("shape", "k", "stride", "pad", "outputs"), WINDOWS)
def test_dense_conv(
    library: Path, shape: Tuple[int, ...], k: int, stride: int, pad: int, outputs: int
) -> None:
    batch, height, width, channels = shape
    rows, columns = ((n + 2 * pad - k) // stride + 1 for n in (height, width))
    x, weight, dy = randoms(shape, (outputs, k * k * channels), (batch, rows, columns, outputs))

    def convolve(x: Any, weight: Any) -> Any:
        kernel = weight.reshape(outputs, k, k, channels).permute(0, 3, 1, 2)
        return nhwc(lambda x: functional.conv2d(x, kernel, stride=stride, padding=pad))(x)

    y, dx, dweight = expected(convolve, (x, weight), dy)
    geometry = np.ones((k, stride, pad + 1))
    assert_close(call(library, "dense_conv_forward", (x, weight, geometry), [dy.shape])[0], y)
    inputs = (dy, weight, geometry, x)
    assert_close(call(library, "dense_conv_backward_input", inputs, [shape])[0], dx)
    inputs = (dy, x, geometry)
    assert_close(call(library, "dense_conv_backward_weight", inputs, [weight.shape])[0], dweight)


# Map (B, H, W, C), kernel, channels of the output: whole patches, some left over, none.
PATCHES = [
    ((2, 8, 12, 20), 4, 17),
    ((3, 7, 10, 5), 2, 9),
    ((1, 3, 9, 4), 4, 6),
    ((2, 28, 28, 64), 1, 40),
]


@pytest.mark.parametrize(("shape", "k", "out"), PATCHES)
def test_patch_conv(library: Path, shape: Tuple[int, ...], k: int, out: int) -> None:
    batch, height, width, channels = shape
    sizes = (out, channels, k, k), (out,), (batch, height // k, width // k, out)
    x, weight, bias, dy = randoms(shape, *sizes)

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        if not dy.size:
            return (x.sum() + weight.sum() + bias.sum()) * torch.zeros(dy.shape, dtype=x.dtype)
        return nhwc(lambda x: functional.conv2d(x, weight, bias, stride=k))(x)

    y, *grads = expected(convolve, (x, weight, bias), dy)
    assert_close(call(library, "patch_conv_forward", (x, weight, bias), [dy.shape])[0], y)
    ours = (
        *call(library, "patch_conv_backward_input", (dy, weight, x), [shape]),
        *call(library, "patch_conv_backward_weight", (dy, x, weight), [weight.shape, bias.shape]),
    )
    for mine, theirs in zip(ours, grads):
        assert_close(mine, theirs)


@pytest.mark.parametrize("shape", [(2, 9, 12, 5), (1, 1, 1, 3), (3, 32, 32, 64), (2, 2, 7, 9)])
def test_relu_and_max_pool(library: Path, shape: Tuple[int, ...]) -> None:
    (x,) = randoms(shape)
    x = np.round(x - 1, 1)  # ties, zeros, and windows with nothing above 0
    pool = nhwc(lambda x: functional.max_pool2d(functional.relu(x), 3, 2, 1))
    out = pool(torch.tensor(x)).shape
    (dy,) = randoms(tuple(out))
    y, dx = expected(pool, (x,), dy)
    (ours,) = call(library, "relu_max_pool_forward", (x,), [y.shape])
    np.testing.assert_array_equal(ours, y.astype(np.float32))
    assert_close(call(library, "relu_max_pool_backward", (dy, ours, x), [shape])[0], dx)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_overflow_passes_through(library: Path, bad: float) -> None:
    """As in torch: where it has NaN or infinity, so have the kernels, and nowhere else."""
    shape, c = (1, 4, 5, 19), 19
    x, w, one, zero = *randoms(shape, (c, 1, 3, 3)), np.ones(c, np.float32), np.zeros(c, np.float32)
    x[0, 1, 2, 17] = bad
    eps = np.array([1e-6], np.float32)
    t = torch.tensor(x)
    conv = nhwc(lambda x: functional.conv2d(x, torch.tensor(w), padding=1, groups=c))
    square = randoms((c, c))[0]
    linear = lambda t: functional.linear(t, torch.tensor(square), torch.ones(c))  # noqa: E731
    mlp = lambda t: linear(functional.gelu(linear(t)))  # noqa: E731
    cases = [
        ("gelu_forward", (x, zero), [shape], functional.gelu(t)),
        ("layer_norm_forward", (x, one, zero, eps), [shape], functional.layer_norm(t, (c,))),
        ("depthwise_conv_forward", (x, w, zero), [shape], conv(t)),
        ("residual_forward", (x, x, one, np.ones(1)), [shape], t + t),
        ("linear_forward", (x, square, one), [shape], linear(t)),
        ("mlp_forward", (x, square, one, square, one), [shape, shape], mlp(t)),
        ("mean_of_maps_forward", (x,), [(1, 4)], t.mean(dim=(2, 3))),
        (
            "gelu_running_norm_forward",
            (x, one, zero, zero, one, eps),
            [shape],
            functional.gelu(t),
        ),
        (
            "dense_conv_forward",
            (x, np.ones((2, 9 * c)), np.ones((3, 1, 2))),
            [(1, 4, 5, 2)],
            nhwc(lambda x: functional.conv2d(x, torch.ones(2, c, 3, 3), padding=1))(t),
        ),
        (
            "relu_max_pool_forward",
            (x,),
            [(1, 2, 3, c)],
            nhwc(lambda x: functional.max_pool2d(functional.relu(x), 3, 2, 1))(t),
        ),
    ]
    for name, inputs, shapes, theirs in cases:
        ours = call(library, name, inputs, shapes)[0]
        np.testing.assert_array_equal(np.isfinite(ours), theirs.isfinite().numpy(), err_msg=name)
    weights = one, one, w, *[one] * 3, square.reshape(c, c, 1, 1), *[one] * 3
    inputs = (eps, x, np.ones((1, 1)), *weights)
    outs = [shape, (1, *shape), (1, *shape), (6, c)]
    # The norm spoils the channel, the product all of them.
    y, *_ = call(library, "relu_conv_mixer_blocks_forward", inputs, outs)
    assert not np.isfinite(y).any()
    # A bad key of head 0 in sample 0 spoils all that head gives, and nothing of the others.
    (qkv,) = randoms((2, 9, 24))
    qkv[0, 3, 10] = bad
    inputs = (np.array([2]), qkv, *NO_DROPOUT)
    (ours,) = call(library, "self_attention_forward", inputs, [(2, 9, 8)])
    theirs = attention(*heads_of(torch.tensor(qkv), 3, 2)).isfinite().numpy()
    np.testing.assert_array_equal(np.isfinite(ours), theirs)
    assert not theirs.all()
    assert theirs[1].all()
    assert theirs[..., 4:].all()
    dy = np.zeros_like(x)
    dy[0, 1, 2, 17] = bad
    for inputs, name, outs in (
        ((dy, np.nan_to_num(x, posinf=1.0), zero), "gelu_backward", [shape, (c,)]),
        ((dy, w), "depthwise_conv_backward_input", [shape]),
    ):
        assert not np.isfinite(call(library, name, inputs, outs)[0]).all(), name


# Of one block, 8 channels.
_VECTOR, _SQUARE = np.ones(8), np.ones((8, 8, 1, 1))
CONV_MIXER_WEIGHTS = (
    *[_VECTOR] * 2,
    *(np.ones((8, 1, 3, 3)), *[_VECTOR] * 3),
    *(_SQUARE, *[_VECTOR] * 3),
)


def test_shapes_of_zero(library: Path) -> None:
    none, c, w = np.zeros((0, 4, 4, 8)), np.ones(8), np.ones((8, 1, 3, 3))
    eps = np.ones(1)
    s = none.shape
    for name, inputs, outs in (
        ("gelu_forward", (none, c), [s]),
        ("linear_forward", (none, np.ones((3, 8)), np.ones(3)), [(0, 4, 4, 3)]),
        ("mlp_forward", (none, np.ones((3, 8)), *[np.ones(3)] * 3), [(0, 4, 4, 3)] * 2),
        ("self_attention_forward", (eps, np.zeros((0, 5, 6)), *NO_DROPOUT), [(0, 5, 2)]),
        ("self_attention_forward", (eps, np.zeros((3, 0, 6)), *NO_DROPOUT), [(3, 0, 2)]),
        ("cross_attention_forward", (eps, np.zeros((0, 5, 2)), np.zeros((0, 3, 4))), [(0, 5, 2)]),
        ("layer_norm_forward", (none, c, c, eps), [s]),
        ("depthwise_conv_forward", (none, w, c), [s]),
        ("depthwise_conv_backward_input", (none, w), [s]),
        ("residual_forward", (none, none, c, np.ones(0)), [s]),
        ("add_kept_forward", (none, none, np.ones(0)), [s]),
        ("add_kept_backward", (none, np.ones(0)), [s]),
        ("relu_max_pool_forward", (none,), [(0, 2, 2, 8)]),
        ("relu_max_pool_backward", (np.zeros((0, 2, 2, 8)), np.zeros((0, 2, 2, 8)), none), [s]),
        ("dense_conv_forward", (none, np.ones((3, 72)), np.ones((3, 1, 2))), [(0, 4, 4, 3)]),
        ("to_channels_first", (none,), [(0, 8, 4, 4)]),
        ("to_channels_last", (none,), [(0, 4, 8, 4)]),
        ("mean_of_maps_forward", (none,), [(0, 4)]),
        ("normalize_images", (none[..., :3].astype(np.uint8), c[:3], c[:3]), [(0, 3, 4, 4)]),
        (
            "mix_images",
            (none[..., :3].astype(np.uint8), c[:3], c[:3], eps, np.zeros((0, 5))),
            [(0, 3, 4, 4)],
        ),
        ("relu_running_norm_forward", (none, c, c, c, c, eps), [s]),
        ("patch_conv_forward", (none, np.ones((3, 8, 2, 2)), np.ones(3)), [(0, 2, 2, 3)]),
        (
            "gelu_conv_mixer_blocks_forward",
            (eps, none, np.ones((1, 0)), *CONV_MIXER_WEIGHTS),
            [s, (1, *s), (1, *s), (6, 8)],
        ),
    ):
        call(library, name, inputs, outs)
    for name, inputs, outs in (
        ("gelu_backward", (none, none, c), [s, (8,)]),
        ("linear_backward", (none, none, np.ones((8, 8))), [s, (8, 8), (8,)]),
        (
            "mlp_backward",
            (none, np.zeros((0, 3)), none, np.ones((3, 8)), np.ones(3), np.ones((8, 3))),
            [s, (3, 8), (3,), (8, 3), (8,)],
        ),
        (
            "gelu_conv_mixer_blocks_backward",
            (eps, none, np.ones((1, 0)), none, *[np.zeros((1, *s))] * 2, np.ones((6, 8)))
            + CONV_MIXER_WEIGHTS,
            [s, *[weight.shape for weight in CONV_MIXER_WEIGHTS]],
        ),
        ("global_norm", (none, none), [(1,)]),
        ("layer_norm_backward", (none, none, c, eps), [s, (8,), (8,)]),
        ("gelu_running_norm_backward", (none, none, c, c, c, eps), [s, (8,), (8,)]),
        (
            "dense_conv_backward_weight",
            (np.zeros((0, 4, 4, 3)), none, np.ones((3, 1, 2))),
            [(3, 72)],
        ),
        (
            "patch_conv_backward_weight",
            (np.zeros((0, 2, 2, 3)), none, np.ones((3, 8, 2, 2))),
            [(3, 8, 2, 2), (3,)],
        ),
        ("depthwise_conv_backward_weight", (none, none, w), [(8, 1, 3, 3), (8,)]),
        ("residual_backward", (none, none, c, np.ones(0)), [s, (8,)]),
    ):
        for sums in call(library, name, inputs, outs)[1 if outs[0] == s else 0 :]:
            assert (sums == 0).all(), name
    # Without keys there is nothing to attend to.
    inputs = (eps, np.ones((2, 5, 4)), np.zeros((2, 0, 8)))
    assert (call(library, "cross_attention_forward", inputs, [(2, 5, 4)])[0] == 0).all()
    for narrow in ((0,), (3, 0)):
        call(library, "gelu_forward", (np.zeros(narrow), np.zeros(0)), [narrow])


def test_other_types_are_refused(library: Path) -> None:
    arrays = [np.ones((2, 4), np.float32)] * 2
    assert call_status(library, "gelu_forward", [*arrays, arrays[0]], "float16") != 0
    assert call_status(library, "gelu_forward", arrays, "float32") != 0
    assert call_status(library, "draw_keys", [*arrays, arrays[0]], "float32") != 0
    assert call_status(library, "normalize_images", [*arrays, *arrays], "float32") != 0
