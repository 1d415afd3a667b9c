"""Order, striding and generators."""

from __future__ import annotations

import itertools
import random
from typing import Tuple

import numpy as np
import pytest

from src.data.decode import BadImageError
from src.data.sampler import (
    PADDING,
    Key,
    balanced_order,
    batch_generator,
    count_eval_steps,
    epoch_generator,
    epoch_order,
    eval_keys,
    sample_generator,
    train_keys,
)
from src.data.samples import TrainSample
from src.errors import UserError
from src.run_length import RunLength, count_train_steps

PINNED_ORDER = [2, 7, 3, 0, 9, 1, 4, 6, 8, 5]
PINNED_BALANCED = [[2, 7, 0, 6, 6, 1, 4, 7], [0, 0, 0, 1, 0, 0, 0, 1]]
PINNED_DRAWS = [472, 983, 247]


def run_keys(
    rank=0,
    world_size=1,
    batch_size=4,
    first_step=0,
    num_samples=23,
    num_epochs=3,
    repeats=1,
    **balance,
):
    steps = count_train_steps(
        num_samples, batch_size=batch_size, world_size=world_size, repeats=repeats
    )
    keys = train_keys(
        num_samples,
        RunLength(num_epochs, steps),
        batch_size=batch_size,
        seed=7,
        first_step=first_step,
        rank=rank,
        world_size=world_size,
        repeats=repeats,
        **balance,
    )
    return np.array(list(keys)).reshape(-1, 3)


def test_order_is_a_permutation_that_differs_between_epochs_and_seeds():
    orders = [epoch_order(1000, seed=s, epoch=e) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({tuple(order) for order in orders}) == 4
    # Pinned: a run that is resumed with another NumPy goes on in the same order.
    assert epoch_order(10, seed=1, epoch=0).tolist() == PINNED_ORDER
    assert sample_generator(1, 2, 3).integers(1000, size=3).tolist() == PINNED_DRAWS


@pytest.mark.parametrize("position", [(0, 0, 0, 0), (7, 1, 2, 3), (2**63, 10**6, 2**40, 2**63)])
def test_generators_are_numpys_at_key_and_counter(position: Tuple[int, int, int, int]) -> None:
    seed, *counter = position
    key = np.array([seed, 2], np.uint64)
    words = np.array([0, *counter], np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key, counter=words))
    # Of NumPy's own whole numbers too, which cannot be shifted as far.
    found = sample_generator(seed, np.int64(counter[0]), counter[1], counter[2])
    assert found.integers(2**63, size=9).tolist() == expected.integers(2**63, size=9).tolist()
    assert found.normal() == expected.normal()


def test_generators_are_reproducible_and_never_coincide():
    coordinates = [(s, e, i) for s in (0, 1, 2**63) for e in (0, 1, 2) for i in (0, 1, 2)]

    def first_numbers():
        draws = [epoch_generator(s, e).integers(2**63) for s, e, i in coordinates if i == 0]
        draws += [batch_generator(*c).integers(2**63) for c in coordinates]
        draws += [sample_generator(*c).integers(2**63) for c in coordinates]
        return draws + [sample_generator(*c, 1).integers(2**63) for c in coordinates]

    draws = first_numbers()
    assert draws == first_numbers()
    assert len(set(draws)) == len(draws) == 9 + 3 * 27


def test_neighbouring_generators_do_not_overlap():
    near = itertools.product((0, 1), repeat=3)
    streams = [sample_generator(0, *position).integers(2**63, size=1000) for position in near]
    streams += [batch_generator(0, *p).integers(2**63, size=1000) for p in ((0, 0), (0, 1), (1, 0))]
    assert len(np.unique(streams)) == 11_000


def test_one_epoch_visits_nobody_twice_and_drops_the_remainder():
    keys = run_keys()
    assert count_train_steps(23, batch_size=4, world_size=1) == 5
    for epoch in range(3):
        indices = keys[keys[:, 0] == epoch, 1]
        np.testing.assert_array_equal(indices, epoch_order(23, seed=7, epoch=epoch)[:20])
    assert not keys[:, 2].any()


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_order_of_one(world_size):
    ranks = [run_keys(rank, world_size, batch_size=2) for rank in range(world_size)]
    together = np.stack(ranks, axis=1).reshape(-1, 3)
    np.testing.assert_array_equal(together, run_keys(batch_size=2 * world_size))


@pytest.mark.parametrize("first_step", [0, 1, 4, 5, 7, 14, 15])
def test_first_step_skips_keys(first_step):
    np.testing.assert_array_equal(run_keys(first_step=first_step), run_keys()[4 * first_step :])


@pytest.mark.parametrize(("num_samples", "world_size"), [(23, 1), (23, 2), (600, 3), (255, 8)])
def test_repeated_augmentation_visits_what_timm_visits(monkeypatch, num_samples, world_size):
    from torch_oracle import timm, torch

    order = epoch_order(num_samples, seed=7, epoch=0)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.from_numpy(order))
    for rank in range(world_size):
        sampler = timm.data.distributed_sampler.RepeatAugSampler(
            range(num_samples), world_size, rank
        )
        theirs = list(sampler)
        keys = run_keys(rank, world_size, 2, num_samples=num_samples, num_epochs=1, repeats=3)
        steps = count_train_steps(num_samples, batch_size=2, world_size=world_size, repeats=3)
        # The loader drops the last batch when it is not full. Below 256 images timm rounds up on
        # each rank, which may add a step.
        missing = len(theirs) // 2 - steps
        assert len(keys) == 2 * steps
        assert missing == 0 if num_samples >= 256 else missing in (0, 1)
        np.testing.assert_array_equal(keys[:, 1], theirs[: len(keys)])


@pytest.mark.parametrize("num_samples", [256, 257, 511, 512, 1000, 1437])
def test_an_epoch_has_the_steps_of_timms_loader(num_samples: int) -> None:
    from torch_oracle import timm, torch

    sampler_type = timm.data.distributed_sampler.RepeatAugSampler
    for world_size, repeats, batch_size in itertools.product((1, 2, 3, 4), (2, 3, 4), (1, 7, 64)):
        sampler = sampler_type(range(num_samples), world_size, 0, num_repeats=repeats)
        loader = torch.utils.data.DataLoader(
            range(num_samples), batch_size, sampler=sampler, drop_last=True
        )
        if len(loader) == 0:
            with pytest.raises(UserError, match="one step needs"):
                count_train_steps(
                    num_samples, batch_size=batch_size, world_size=world_size, repeats=repeats
                )
            continue
        found = count_train_steps(
            num_samples, batch_size=batch_size, world_size=world_size, repeats=repeats
        )
        assert found == len(loader), (world_size, repeats, batch_size)


def test_repeats_of_an_image_have_their_own_generators():
    keys = run_keys(batch_size=3, repeats=3)
    assert len({tuple(key) for key in keys}) == len(keys) == 3 * 21
    np.testing.assert_array_equal(keys[:6, 2], [0, 1, 2, 0, 1, 2])
    assert keys[0, 1] == keys[2, 1] != keys[3, 1]
    np.testing.assert_array_equal(run_keys(batch_size=3, repeats=3, first_step=9), keys[27:])
    for world_size in (2, 3):
        ranks = [run_keys(r, world_size, 2, repeats=3) for r in range(world_size)]
        together = np.stack(ranks, axis=1).reshape(-1, 3)
        np.testing.assert_array_equal(together, run_keys(batch_size=2 * world_size, repeats=3))


def test_too_few_images_for_one_step():
    with pytest.raises(UserError, match=r"batch_size 8 on 3 .* 24 .* 23; set batch_size to 7"):
        count_train_steps(23, batch_size=8, world_size=3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_samples", [1, 10, 12, 16, 17])
def test_evaluation_covers_every_sample_once(num_samples, world_size):
    steps = count_eval_steps(num_samples, batch_size=4, world_size=world_size)
    seen = []
    for rank in range(world_size):
        keys = eval_keys(num_samples, batch_size=4, rank=rank, world_size=world_size)
        indices = [key.sample for key in keys]
        assert len(indices) == 4 * steps
        mine = [index for index in indices if index != PADDING]
        assert mine == list(range(rank, num_samples, world_size))
        assert indices[: len(mine)] == mine
        seen += mine
    assert sorted(seen) == list(range(num_samples))
    # No batch is padding on all ranks.
    assert 4 * world_size * (steps - 1) < num_samples


def test_global_generators_are_left_alone():
    before = random.getstate(), np.random.get_state()
    run_keys()
    batch_generator(0, 0, 0).random()
    assert random.getstate() == before[0]
    np.testing.assert_equal(np.random.get_state(), before[1])


LONG_TAIL = np.repeat([3, 0, 1], [500, 10, 90])[np.random.default_rng(4).permutation(600)]


@pytest.mark.parametrize(
    ("balance", "due"),
    [
        ("full", {0: 200.0, 1: 200.0, 3: 200.0}),
        # 600 times the root of each over the sum of the roots.
        ("sqrt", {0: 54.2, 1: 162.6, 3: 383.2}),
    ],
)
def test_balanced_epochs_have_the_shares_of_the_classes(balance, due):
    seen = np.zeros(600)
    for epoch in range(40):
        sample, copy = balanced_order(LONG_TAIL, balance, seed=7, epoch=epoch)
        counts = np.bincount(LONG_TAIL[sample], minlength=4)
        assert len(sample) == 600
        assert counts[2] == 0
        for label, number in due.items():
            assert abs(counts[label] - number) < 1.1
            times = np.bincount(sample, minlength=600)[label == LONG_TAIL]
            assert times.max() - times.min() <= 1  # every image of the class, equally often
        pairs = set(zip(sample.tolist(), copy.tolist()))
        assert len(pairs) == 600  # no two entries are augmented alike
        assert copy.max() == -(-counts[0] // 10) - 1
        seen += np.bincount(sample, minlength=600)
    # Over the epochs no image of a common class is left out, and the order has no drift.
    assert seen.min() > 0
    firsts = [
        LONG_TAIL[balanced_order(LONG_TAIL, balance, seed=s, epoch=0).sample[:60]]
        for s in range(50)
    ]
    shares = np.bincount(np.concatenate(firsts), minlength=4) / 3000
    for label, number in due.items():
        assert abs(shares[label] - number / 600) < 0.04


def test_torchs_weighted_sampler_has_the_same_shares():
    """With weights 1 / n for each image, which draw classes equally often."""
    from torch_oracle import torch

    weights = 1.0 / np.bincount(LONG_TAIL, minlength=4)[LONG_TAIL]
    torch.manual_seed(0)
    drawn = list(torch.utils.data.WeightedRandomSampler(weights.tolist(), 60_000))
    theirs = np.bincount(LONG_TAIL[drawn], minlength=4) / 60_000
    ours = np.bincount(LONG_TAIL[balanced_order(LONG_TAIL, "full", seed=1, epoch=2).sample])
    np.testing.assert_allclose(ours / 600, theirs, atol=0.01)


def test_balanced_orders_differ_by_seed_and_epoch_and_are_pinned():
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    found = [balanced_order(labels, "full", seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order.sample) for order in found}) == 3
    # Pinned: a run that is resumed with another NumPy goes on in the same order.
    assert found[0].sample.tolist() == PINNED_BALANCED[0]
    assert found[0].copy.tolist() == PINNED_BALANCED[1]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("balance", ["sqrt", "full"])
def test_balanced_keys_are_the_same_on_any_ranks_and_from_any_step(balance, repeats):
    labels = LONG_TAIL[:100]
    given = {"num_samples": 100, "repeats": repeats, "labels": labels, "balance": balance}
    alone = run_keys(batch_size=12, **given)
    assert len(alone) == 3 * 96
    for world_size in (2, 3):
        ranks = [
            run_keys(rank, world_size, batch_size=12 // world_size, **given)
            for rank in range(world_size)
        ]
        np.testing.assert_array_equal(np.stack(ranks, axis=1).reshape(-1, 3), alone)
    for first_step in (1, 8, 11, 24):
        resumed = run_keys(batch_size=12, first_step=first_step, **given)
        np.testing.assert_array_equal(resumed, alone[12 * first_step :])
    # No key twice in an epoch: each copy has its own augmentation.
    assert len({tuple(key) for key in alone}) == len(alone)
    plain = run_keys(batch_size=12, num_samples=100, repeats=repeats, labels=labels)
    np.testing.assert_array_equal(plain, run_keys(batch_size=12, num_samples=100, repeats=repeats))


class _OneBad:
    """Class 0 has `rare` images, of which the first cannot be read; class 1 has 60."""

    def __init__(self, rare: int) -> None:
        self.labels = np.array([0] * rare + [1] * 60, np.int32)
        self.class_names = ["rare", "common"]

    def __len__(self) -> int:
        return len(self.labels)

    def file_name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> np.ndarray:
        if index == 0:
            raise BadImageError("0: not readable")
        return np.full((8, 8, 3), index, np.uint8)


@pytest.mark.parametrize("rare", [1, 3])
def test_each_copy_of_a_bad_image_is_replaced_by_itself(rare: int) -> None:
    source = _OneBad(rare)
    keep = [lambda pixels, rng: pixels]
    sample = TrainSample(source, keep, None, 0, True, balance="full")  # type: ignore[arg-type]
    order = balanced_order(source.labels, "full", seed=0, epoch=0)
    copies = order.copy[order.sample == 0].tolist()
    assert len(copies) >= 10
    image, label = np.zeros((8, 8, 3), np.uint8), np.zeros(1, np.int32)
    seen = []
    for copy in copies:
        bad = sample(Key(0, 0, copy), 0, image, label, np.zeros(0, np.float32))
        assert bad is not None
        seen.append((int(label[0]), int(image[0, 0, 0])))
    assert len({pixel for _, pixel in seen}) > 1
    # The class keeps its share while it has an image.
    assert {found for found, _ in seen} == ({0} if rare > 1 else {1})
