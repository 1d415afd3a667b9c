"""Mixup, CutMix, normalisation and soft labels against timm 1.0.31."""

from __future__ import annotations

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from scipy.stats import ks_2samp
from torch_oracle import seeded, timm, torch, torchvision

from src.data.augment.batch_transform import BatchTransform, ImageNormalize
from src.data.augment.mixup import Mixing, cut_box, draw_minmax_box, draw_mix
from src.data.sampler import batch_generator

timm_mixup = timm.data.mixup
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_CLASSES, SIZE = 7, 37
BOTH = {"mix_up": 0.8, "cutmix": 1.0, "mixup_prob": 1.0, "switch_prob": 0.5}


def draw(batch_size, mode="elem", seed=0, size=SIZE, **values):
    rng = np.random.default_rng(seed)
    return draw_mix(Mixing(**{**BOTH, **values}, mixup_mode=mode), batch_size, size, rng=rng)


def random_batch(batch_size, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch_size, SIZE, SIZE, 3), dtype=np.uint8)
    return image, rng.integers(0, NUM_CLASSES, batch_size).astype(np.int32)


def torch_normalize(image):
    normalize = torchvision.transforms.Normalize(MEAN, STD)
    return normalize(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)


def build(batch_size, smoothing=0.0):
    return BatchTransform(
        batch_size,
        SIZE,
        num_classes=NUM_CLASSES,
        mean=MEAN,
        std=STD,
        label_smoothing=smoothing,
    )


def run(transform, *batch):
    outputs = transform(*(Tensor(array) for array in batch))
    assert all(output.dtype == ms.float32 for output in outputs)
    return tuple(output.asnumpy() for output in outputs)


def timm_mix(monkeypatch, image, label, mix, mixup_mode, smoothing):
    """timm's Mixup with its draws replaced by the rows of `mix`."""
    is_cut = (mix[:, 3] - mix[:, 1]) * (mix[:, 4] - mix[:, 2]) > 0
    rows = iter(mix[is_cut])

    def next_box(*_, **__):
        lam, x0, y0, x1, y1 = next(rows)
        return tuple(int(edge) for edge in (y0, y1, x0, x1)), float(lam)

    def params_per_elem(count):
        return mix[:count, 0].copy(), is_cut[:count]

    mixup = timm_mixup.Mixup(
        mode=mixup_mode, label_smoothing=smoothing, num_classes=NUM_CLASSES, cutmix_alpha=1.0
    )
    monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", next_box)
    monkeypatch.setattr(mixup, "_params_per_elem", params_per_elem)
    monkeypatch.setattr(mixup, "_params_per_batch", lambda: (float(mix[0, 0]), bool(is_cut[0])))
    mixed, target = mixup(torch_normalize(image), torch.from_numpy(label))
    return mixed.numpy(), target.numpy()


@pytest.mark.parametrize(("batch_size", "smoothing"), [(2, 0.0), (8, 0.1)])
def test_batch_transform_equals_timm(monkeypatch, mode, batch_size, smoothing):
    transform = build(batch_size, smoothing)
    image, label = random_batch(batch_size)
    for mixup_mode, seed in itertools.product(("batch", "pair", "elem"), range(4)):
        mix = draw(batch_size, mixup_mode, seed=seed, mixup_prob=0.8)
        ours = run(transform, image, label, mix)
        theirs = timm_mix(monkeypatch, image, label, mix, mixup_mode, smoothing)
        for mine, other in zip(ours, theirs):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours[1].sum(1), 1.0, atol=1e-6)


def test_normalize_equals_torchvision(mode):
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    ours = ImageNormalize(mean=MEAN, std=STD)(Tensor(every_value)).asnumpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, torch_normalize(every_value).numpy(), rtol=0, atol=5e-7)


def test_boxes_are_pasted_and_the_untouched_stay_exactly(mode):
    image, label = random_batch(4)
    mix = np.array(
        [(0.5, 3, 10, 37, 21), (1, 0, 0, 0, 0), (0.0, 0, 0, 37, 37), (1, 5, 5, 5, 9)], np.float32
    )
    mixed, _ = run(build(4), image, label, mix)
    expected = ImageNormalize(mean=MEAN, std=STD)(Tensor(image)).asnumpy()
    own = expected.copy()
    expected[0, :, 10:21, 3:37] = own[3, :, 10:21, 3:37]
    expected[2] = own[1]
    np.testing.assert_array_equal(mixed, expected)


def test_worked_example_of_smoothing():
    image, _ = random_batch(2)
    label = np.array([3, 5], np.int32)
    mix = np.array([(0.7, 0, 0, 0, 0), (1, 0, 0, 0, 0)], np.float32)
    transform = BatchTransform(2, SIZE, num_classes=10, mean=MEAN, std=STD, label_smoothing=0.1)
    _, target = transform(Tensor(image), Tensor(label), Tensor(mix))
    expected = np.full((2, 10), 0.01)
    expected[0, 3], expected[0, 5], expected[1, 5] = 0.64, 0.28, 0.91
    np.testing.assert_allclose(target.asnumpy(), expected, atol=1e-7)


@pytest.mark.parametrize("size", [33, 224])
def test_cut_box_equals_timm(monkeypatch, size):
    rng = np.random.default_rng(0)
    for _ in range(300):
        lam = float(rng.random())
        center_x, center_y = (int(c) for c in rng.integers(size, size=2))
        centers = iter((center_y, center_x))
        monkeypatch.setattr(timm_mixup.np.random, "randint", lambda *_, **__: next(centers))  # noqa: B023
        y0, y1, x0, x1 = timm_mixup.rand_bbox((3, size, size), lam)
        monkeypatch.undo()
        assert cut_box(lam, center_x, center_y, size) == (x0, y0, x1, y1)


def timm_draws(count, size, **arguments):
    """Rows (lam, x0, y0, x1, y1) of many draws of timm's Mixup for whole batches."""
    mixup = timm_mixup.Mixup(**arguments)
    rows = []
    for _ in range(count):
        lam, is_cut = mixup._params_per_batch()
        y0 = y1 = x0 = x1 = 0
        if is_cut and lam != 1.0:
            (y0, y1, x0, x1), lam = timm_mixup.cutmix_bbox_and_lam((3, size, size), lam)
        rows.append((lam, x0, y0, x1, y1) if lam != 1.0 else (1, 0, 0, 0, 0))
    return np.array(rows)


@pytest.mark.parametrize("size", [33, 224])
def test_minmax_boxes_are_distributed_as_those_of_timm(size):
    count, minmax = 20_000, (0.2, 0.8)
    rng = np.random.default_rng(0)
    ours = np.array([draw_minmax_box(minmax, size, rng) for _ in range(count)])
    with seeded(1):
        y0, y1, x0, x1 = timm_mixup.rand_bbox_minmax((3, size, size), minmax, count=count)
    theirs = np.stack([x0, y0, x1, y1], axis=1)
    for describe in (
        lambda x0, y0, x1, y1: x0,
        lambda x0, y0, x1, y1: y0,
        lambda x0, y0, x1, y1: x1 - x0,
        lambda x0, y0, x1, y1: y1 - y0,
        lambda x0, y0, x1, y1: size - x1,
        lambda x0, y0, x1, y1: (x1 - x0) * (y1 - y0),
    ):
        mine, other = (describe(*boxes.T.astype(float)) for boxes in (ours, theirs))
        assert ks_2samp(mine, other).pvalue > 1e-3
        assert (mine.min(), mine.max()) == (other.min(), other.max()) or size > 100


def test_minmax_goes_before_alpha_and_sets_the_label():
    mixing = Mixing(cutmix_minmax=(0.25, 0.5), correct_lam=False)
    rows = np.concatenate(
        [draw_mix(mixing, 2, 32, rng=np.random.default_rng(s)) for s in range(50)]
    )
    lam, x0, y0, x1, y1 = rows.T
    np.testing.assert_allclose(lam, 1 - (x1 - x0) * (y1 - y0) / 32**2, atol=1e-6)
    assert min((x1 - x0).min(), (y1 - y0).min()) == 8
    # One length only: no choice.
    tiny = draw_mix(Mixing(cutmix_minmax=(0.5, 0.6)), 2, 4, rng=np.random.default_rng(0))
    assert (tiny[0, 3] - tiny[0, 1], tiny[0, 4] - tiny[0, 2]) == (2, 2)


def test_label_without_correction_is_the_drawn_one():
    # As drawn: uniform, whatever the border clips. Corrected labels have more of the image itself.
    count = 20_000
    values = {"mix_up": 0.0, "cutmix": 1.0}
    lam = draw(count, size=224, correct_lam=False, **values)[:, 0]
    corrected = draw(count, size=224, **values)[:, 0]
    assert ks_2samp(lam, np.random.default_rng(8).random(count)).pvalue > 1e-3
    assert corrected.mean() > lam.mean() + 0.1
    # Pixels by the box, label by lam.
    image, label = random_batch(2)
    mix = np.array([(0.25, 0, 0, 9, 9)] * 2, np.float32)
    mixed, target = run(build(2), image, label, mix)
    own = ImageNormalize(mean=MEAN, std=STD)(Tensor(image)).asnumpy()
    np.testing.assert_array_equal(mixed[0, :, :9, :9], own[1, :, :9, :9])
    np.testing.assert_array_equal(mixed[0, :, 9:], own[0, :, 9:])
    one_hot = np.eye(NUM_CLASSES)[label]
    np.testing.assert_allclose(target, 0.25 * one_hot + 0.75 * one_hot[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("alphas", "prob"), [((0.8, 0.0), 1.0), ((0.0, 1.0), 1.0), ((0.8, 1.0), 1.0), ((0.2, 0.5), 0.6)]
)
@pytest.mark.parametrize("mixup_mode", ["batch", "elem"])
def test_draws_are_distributed_as_those_of_timm(mixup_mode, alphas, prob):
    count, size = 20_000, 224
    values = {"mix_up": alphas[0], "cutmix": alphas[1], "mixup_prob": prob, "switch_prob": 0.3}
    if mixup_mode == "elem":
        ours = draw(count, size=size, seed=1, **values)
    else:
        # As a run draws them: a generator for every batch.
        mixing, keys = (
            Mixing(**values),
            ((1, batch // 1000, batch % 1000) for batch in range(count)),
        )
        ours = np.stack([draw_mix(mixing, 2, size, rng=batch_generator(*key))[0] for key in keys])
    with seeded(0):
        theirs = timm_draws(
            count,
            size,
            mixup_alpha=alphas[0],
            cutmix_alpha=alphas[1],
            prob=prob,
            switch_prob=0.3,
        )
    for describe in (
        lambda lam, x0, y0, x1, y1: lam,
        lambda lam, x0, y0, x1, y1: x0,
        lambda lam, x0, y0, x1, y1: y1,
        lambda lam, x0, y0, x1, y1: (x1 - x0) * (y1 - y0),
        lambda lam, x0, y0, x1, y1: (x0 + x1) - (y0 + y1),
        lambda lam, x0, y0, x1, y1: lam + (x1 - x0) * (y1 - y0) / size**2,
    ):
        # Rounded: where both are 1 up to rounding, ranks would compare the rounding.
        mine, other = (np.round(describe(*rows.T), 5) for rows in (ours, theirs))
        assert ks_2samp(mine, other).pvalue > 1e-3


def test_modes_share_draws_as_named():
    batch, pair, elem = (draw(8, mode) for mode in ("batch", "pair", "elem"))
    assert all(rows.shape == (8, 5) and rows.dtype == np.float32 for rows in (batch, pair, elem))
    assert len(np.unique(batch, axis=0)) == 1
    np.testing.assert_array_equal(pair, pair[::-1])
    assert len(np.unique(pair, axis=0)) == 4
    assert len(np.unique(elem, axis=0)) == 8


@pytest.mark.parametrize("values", [{"mix_up": 0.0, "cutmix": 0.0}, {"mixup_prob": 0.0}])
@pytest.mark.parametrize("mixup_mode", ["batch", "pair", "elem"])
def test_no_mixing_leaves_rows_untouched(mixup_mode, values):
    np.testing.assert_array_equal(draw(6, mixup_mode, **values), [(1, 0, 0, 0, 0)] * 6)


@pytest.mark.parametrize("mixup_mode", ["batch", "pair", "elem"])
def test_middle_of_an_odd_batch_stays(mixup_mode):
    image, label = random_batch(5)
    mix = draw(5, mixup_mode, seed=3)
    assert mix.shape == (5, 5)
    mixed, target = run(build(5), image, label, mix)
    own = ImageNormalize(mean=MEAN, std=STD)(Tensor(image)).asnumpy()
    np.testing.assert_allclose(mixed[2], own[2], atol=1e-6)
    np.testing.assert_allclose(target[2], np.eye(NUM_CLASSES)[label[2]], atol=1e-6)
