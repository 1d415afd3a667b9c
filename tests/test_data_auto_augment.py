"""Augmentation policies against timm 1.0.31 and torchvision: pixels, arguments, distributions."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from photographs import sized_photographs
from PIL import Image
from scipy.stats import binomtest, chi2_contingency, ks_2samp, kstest
from torch_oracle import seeded, timm, torch, torchvision

from src.data.augment import image_ops, policy_tables
from src.data.augment.auto_augment import TRIVIAL_OPS, create_policy
from src.data.augment.op_levels import OPS, Surroundings, draw_op_call, op_call
from src.data.augment.policy_grammar import parse_policy
from src.errors import UserError

theirs_module = timm.data.auto_augment
FILL, SIZE = (124, 116, 104), 224
NUM_DRAWS = 20_000
RAND_STRINGS = [
    "rand",
    "rand-m9-mstd0.5-inc1",
    "rand-m9-n3-mstd0.5",
    "rand-inc1-p0.8-m15-mmax20-mstd3",
    "rand-m7-mstd101-inc1",
    "rand-m9-mstd100",
    "rand-m9-inc0",
    "rand-mstd1-tweights",
    "rand-m9-n3-t3a",
    "rand-m9-n4-mstd0.5-t3aw",
]
AUTO_STRINGS = ["original", "originalr", "v0", "v0r", "original-mstd0.5", "3a"]
AUGMIX_STRINGS = ["augmix-m5-w4-d2", "augmix", "augmix-mstd1-a0.5"]


@pytest.fixture(scope="module")
def photographs():
    return sized_photographs()


def surroundings(name="bicubic", **values):
    return Surroundings(name, FILL, SIZE, **values)


def timm_hparams(name="bicubic"):
    hparams = {"translate_const": int(SIZE * 0.45), "img_mean": FILL}
    if name != "random":
        hparams["interpolation"] = timm.data.transforms.str_to_pil_interp(name)
    return hparams


def timm_policy(text, name="bicubic"):
    hparams = timm_hparams(name)
    if text.startswith("rand"):
        return theirs_module.rand_augment_transform(text, hparams)
    if text.startswith("augmix"):
        hparams["translate_pct"] = 0.3
        return theirs_module.augment_and_mix_transform(text, hparams)
    return theirs_module.auto_augment_transform(text, hparams)


def our_policy(text, name="bicubic"):
    return create_policy(text, image_size=SIZE, interpolation=name, fill=FILL)


def timm_image(monkeypatch, image, name, level, sign, interpolation):
    """timm's operation at a level and a sign."""
    monkeypatch.setattr(theirs_module, "_randomly_negate", lambda value: sign * value)
    # Without it, timm stops at level 10.
    hparams = {**timm_hparams(interpolation), "magnitude_max": 20}
    operation = theirs_module.AugmentOp(name, 1.0, level, hparams)
    return operation(image)


def oracle_names():
    return [name for name in theirs_module.NAME_TO_OP if name != "GaussianBlurRand"]


def assert_operation_equals_timm(monkeypatch, photographs, name, levels):
    rng = np.random.default_rng(0)
    for level in levels:
        for sign, interpolation in ((1, "bicubic"), (-1, "bicubic"), (1, "bilinear")):
            around = surroundings(interpolation)
            call = op_call(name, level, sign, around=around, rng=rng)
            for image in photographs:
                if call.name == "Posterize" and call.argument <= 0:
                    # Pillow 13 raises; before, it was black.
                    expected = np.zeros_like(image)
                else:
                    expected = timm_image(monkeypatch, image, name, level, sign, interpolation)
                ours = image_ops.apply_op(np.array(image), *call)
                np.testing.assert_array_equal(ours, expected, err_msg=name)


@pytest.mark.parametrize("name", oracle_names())
def test_operations_have_the_pixels_of_timm(monkeypatch, photographs, name):
    assert_operation_equals_timm(monkeypatch, photographs, name, range(11))


@pytest.mark.slow
@pytest.mark.parametrize("name", oracle_names())
def test_operations_have_the_pixels_of_timm_between_and_beyond_the_levels(
    monkeypatch, photographs, name
):
    levels = [0.3, 4.7, 7.77, 9.999, 12, 20]
    assert_operation_equals_timm(monkeypatch, photographs, name, levels)


def test_every_operation_of_timm_is_there():
    torchvisions = {name for name in OPS if name.endswith("Torchvision")}
    assert set(OPS) - torchvisions == set(theirs_module.NAME_TO_OP)
    signed = {name for name in OPS if OPS[name].is_signed}
    rng = np.random.default_rng(0)
    for name in OPS:
        arguments = {op_call(name, 9, s, around=surroundings(), rng=rng).argument for s in (1, -1)}
        if name != "GaussianBlurRand":
            assert len(arguments) == 1 + (name in signed)


def special_images():
    noise = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    half = np.zeros((40, 40, 3), np.uint8)
    half[:20] = (255, 3, 128)
    return [Image.new("RGB", (33, 21), colour) for colour in ("black", "white", (1, 2, 3))] + [
        Image.fromarray(noise),
        Image.fromarray(half),
        Image.new("RGB", (1, 1), (250, 120, 3)),
    ]


@pytest.mark.parametrize("name", oracle_names())
def test_operations_on_plain_and_tiny_images(monkeypatch, name):
    assert_operation_equals_timm(monkeypatch, special_images(), name, (3, 9.5))


def test_posterize_to_nothing_is_black(photographs):
    for bits in (0, -4):
        assert not image_ops.posterize(np.array(photographs[0]), bits).any()


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.19, 0.5, 1.0, 1.81, 1.9, 3.7])
def test_tables_of_the_enhance_operations_are_those_of_pillow(factor):
    # Every value beside every mean: the blend from any grey.
    from PIL import ImageEnhance

    ramp = np.arange(256, dtype=np.uint8)
    for offset in range(0, 256, 17):
        pixels = np.stack([ramp, np.roll(ramp, offset), np.full(256, offset, np.uint8)], axis=1)
        image = Image.fromarray(pixels.reshape(16, 16, 3))
        for ours, theirs in (
            (image_ops.brightness, ImageEnhance.Brightness),
            (image_ops.contrast, ImageEnhance.Contrast),
        ):
            expected = theirs(image).enhance(factor)
            np.testing.assert_array_equal(ours(np.array(image), factor), expected)


def timm_settings(operation):
    return (
        operation.name,
        operation.prob,
        operation.magnitude,
        operation.magnitude_std,
        operation.magnitude_max or 10,
    )


def our_settings(name, probability, magnitude, around):
    return (name, probability, magnitude, around.magnitude_std, around.magnitude_max)


@pytest.mark.parametrize("text", RAND_STRINGS)
def test_rand_augment_is_set_up_as_in_timm(text):
    ours, theirs = our_policy(text), timm_policy(text)
    assert ours.num_ops == theirs.num_layers
    assert [
        our_settings(name, ours.probability, ours.magnitude, ours.around) for name in ours.names
    ] == [timm_settings(operation) for operation in theirs.ops]
    if theirs.choice_weights is None:
        assert ours.weights is None
    else:
        np.testing.assert_allclose(ours.weights, theirs.choice_weights)


@pytest.mark.parametrize("text", AUTO_STRINGS)
def test_auto_augment_is_set_up_as_in_timm(text):
    ours, theirs = our_policy(text), timm_policy(text)
    assert [[our_settings(*step, ours.around) for step in steps] for steps in ours.policy] == [
        [timm_settings(operation) for operation in steps] for steps in theirs.policy
    ]


@pytest.mark.parametrize("text", AUGMIX_STRINGS)
def test_augmix_is_set_up_as_in_timm(text):
    ours, theirs = our_policy(text), timm_policy(text)
    assert (ours.width, ours.alpha, ours.is_blended) == (theirs.width, theirs.alpha, theirs.blended)
    assert (ours.depth or -1) == theirs.depth
    assert [
        our_settings(name, 1.0, ours.magnitude, ours.around) for name in policy_tables.AUGMIX_OPS
    ] == [timm_settings(operation) for operation in theirs.ops]
    assert ours.around.translate_share == 0.3


class Recorder:
    """Calls of timm's image functions: (function's name, argument, filter)."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name, function in theirs_module.NAME_TO_OP.items():
            monkeypatch.setitem(theirs_module.NAME_TO_OP, name, self.record(function.__name__))

    def record(self, name):
        def operation(image, argument=0.0, **keywords):
            self.calls.append((name, argument))
            return image

        return operation


THEIR_FUNCTIONS = {
    "AutoContrast": "auto_contrast",
    "TranslateX": "translate_x_abs",
    "TranslateY": "translate_y_abs",
    "TranslateXRel": "translate_x_rel",
    "TranslateYRel": "translate_y_rel",
    "SolarizeAdd": "solarize_add",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "GaussianBlur": "gaussian_blur",
}


def their_name(call):
    return THEIR_FUNCTIONS.get(call.name, call.name.lower())


def assert_same_distribution(ours, theirs):
    """Counts of categories by chi-square, where both together reach 40."""
    mine, other = Counter(ours), Counter(theirs)
    common = [key for key in mine | other if mine[key] + other[key] >= 40]
    table = np.array([[counts[key] for key in common] for counts in (mine, other)])
    rest = np.array([[sum(mine.values())], [sum(other.values())]]) - table.sum(1, keepdims=True)
    table = np.concatenate([table, rest[:, :]], axis=1)
    table = table[:, table.sum(0) > 0]
    assert chi2_contingency(table).pvalue > 1e-3, table


def compare_draws(monkeypatch, text, num_draws):
    recorder = Recorder(monkeypatch)
    theirs, ours = timm_policy(text), our_policy(text)
    image = Image.new("RGB", (2, 2))
    their_images, our_images = [], []
    with seeded(3):
        for _ in range(num_draws):
            recorder.calls = []
            theirs(image)
            their_images.append(recorder.calls)
    rng = np.random.default_rng(4)
    for _ in range(num_draws):
        our_images.append([(their_name(call), call.argument) for call in ours.draw(rng)])
    for describe in (len, lambda calls: calls[0][0] if calls else None):
        assert_same_distribution(map(describe, our_images), map(describe, their_images))
    names = {name for calls in their_images for name, _ in calls}
    for name in names:
        mine, other = (
            [argument for calls in images for called, argument in calls if called == name]
            for images in (our_images, their_images)
        )
        values = set(mine) | set(other)
        if len(values) == 1:
            continue
        if len(values) < 50:
            assert_same_distribution(mine, other)
        else:
            assert ks_2samp(mine, other).pvalue > 1e-3, name


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd101-p0.7-t3aw"])
def test_draws_are_distributed_as_those_of_timm(monkeypatch, text):
    compare_draws(monkeypatch, text, NUM_DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("text", [*RAND_STRINGS, *AUTO_STRINGS])
def test_draws_of_every_policy_are_distributed_as_those_of_timm(monkeypatch, text):
    if text == "3a":
        # timm draws the radius inside the image function, which is recorded here.
        pytest.skip("compared by test_radius_of_the_blur_is_uniform")
    compare_draws(monkeypatch, text, NUM_DRAWS)


def test_radius_of_the_blur_is_uniform():
    rng = np.random.default_rng(0)
    calls = [
        draw_op_call("GaussianBlurRand", 10, 1.0, around=surroundings(), rng=rng)
        for _ in range(NUM_DRAWS)
    ]
    assert kstest([c.argument for c in calls], "uniform", (0.1, 1.9)).pvalue > 1e-3


def test_filter_is_drawn_per_call_when_random():
    rng = np.random.default_rng(0)
    for name, expected in (("random", {2, 3}), ("bilinear", {2}), ("bicubic", {3})):
        warps = [
            draw_op_call("Rotate", 9, 1.0, around=surroundings(name), rng=rng).warp
            for _ in range(NUM_DRAWS)
        ]
        counts = Counter(int(warp.resample) for warp in warps)
        assert set(counts) == expected
        assert {warp.fill for warp in warps} == {FILL}
        if name == "random":
            assert binomtest(counts[2], NUM_DRAWS).pvalue > 1e-3


def timm_operation(call):
    """A drawn call as a callable of timm's."""
    function = getattr(theirs_module, their_name(call))
    arguments = () if call.name in image_ops.PLAIN_OPS else (call.argument,)

    def operate(image):
        if call.name == "Posterize" and call.argument <= 0:
            return Image.new("RGB", image.size)
        return function(image, *arguments, resample=call.warp.resample, fillcolor=FILL)

    return operate


@pytest.mark.parametrize("text", [*RAND_STRINGS, *AUTO_STRINGS])
def test_whole_policies_have_the_pixels_of_timm(photographs, text):
    policy = our_policy(text, "random")
    for seed in range(12):
        image = photographs[1 + seed % 4]
        ours = policy(np.array(image), np.random.default_rng(seed))
        calls = policy.draw(np.random.default_rng(seed))
        for call in calls:
            image = timm_operation(call)(image)
        np.testing.assert_array_equal(ours, np.asarray(image), err_msg=str(calls))


@pytest.mark.parametrize("text", [*AUGMIX_STRINGS, "augmix-m5-b1", "augmix-b1-w5-a0.3"])
def test_augmix_has_the_pixels_of_timm(monkeypatch, photographs, text):
    policy, theirs = our_policy(text), timm_policy(text)
    for seed in range(6):
        drawn = policy.draw(np.random.default_rng(seed))
        chains = [[timm_operation(call) for call in chain] for chain in drawn.chains]
        theirs.depth = 1
        remaining = iter(chains)

        def next_chain(*_, remaining=remaining, **__):
            return next(remaining)

        monkeypatch.setattr(theirs_module.np.random, "dirichlet", lambda _, d=drawn: d.weights)
        monkeypatch.setattr(theirs_module.np.random, "beta", lambda *_, d=drawn: d.share)
        monkeypatch.setattr(theirs_module.np.random, "choice", next_chain)
        image = photographs[1 + seed % 4]
        expected = np.asarray(theirs(image))
        monkeypatch.undo()
        ours = policy(np.array(image), np.random.default_rng(seed))
        np.testing.assert_array_equal(ours, expected)


def test_augmix_draws_are_distributed_as_those_of_timm(monkeypatch):
    text, num_draws = "augmix-m5-w3", NUM_DRAWS
    recorder = Recorder(monkeypatch)
    theirs, ours = timm_policy(text), our_policy(text)
    their_weights, their_shares = [], []

    def mix(image, weights, share):
        their_weights.append(weights[0])
        their_shares.append(share)
        return basic(image, weights, share)

    basic = theirs._apply_basic
    monkeypatch.setattr(theirs, "_apply_basic", mix)
    with seeded(1):
        lengths = []
        for _ in range(num_draws):
            before = len(recorder.calls)
            theirs(Image.new("RGB", (2, 2)))
            lengths.append(len(recorder.calls) - before)
    rng = np.random.default_rng(2)
    drawn = [ours.draw(rng) for _ in range(num_draws)]
    assert ks_2samp([d.weights[0] for d in drawn], their_weights).pvalue > 1e-3
    assert ks_2samp([d.share for d in drawn], their_shares).pvalue > 1e-3
    assert_same_distribution((sum(map(len, d.chains)) for d in drawn), lengths)
    mine = [c.argument for d in drawn for chain in d.chains for c in chain if c.name == "Rotate"]
    assert ks_2samp(mine, [a for name, a in recorder.calls if name == "rotate"]).pvalue > 1e-3


def test_trivial_augment_has_the_arguments_of_torchvision():
    space = torchvision.transforms.TrivialAugmentWide()._augmentation_space(31)
    assert list(space) == list(TRIVIAL_OPS)
    offsets = {"Brightness": 1, "Color": 1, "Contrast": 1, "Sharpness": 1}
    for name, (magnitudes, signed) in space.items():
        op = TRIVIAL_OPS[name]
        assert op.is_signed == signed
        values = magnitudes.numpy().reshape(-1)
        for i, value in enumerate(values):
            for sign in (1, -1) if signed else (1,):
                expected = offsets.get(name, 0) + sign * float(value)
                if name.startswith("Translate"):
                    # torch's 16 is 15.999999 in float32, and its integer part 15.
                    expected = -int(round(expected, 4))
                ours = op.argument(i / 30, sign)
                assert ours == pytest.approx(expected, abs=2e-5), (name, i)
                if name in ("Solarize", "Posterize"):
                    # Compared with integers: what matters is the next one.
                    assert math.ceil(ours - 1e-4) == math.ceil(expected - 1e-4)


@pytest.mark.parametrize("name", list(TRIVIAL_OPS))
def test_trivial_augment_has_the_pixels_of_torchvision(photographs, name):
    apply = torchvision.transforms.autoaugment._apply_op
    magnitudes, signed = torchvision.transforms.TrivialAugmentWide()._augmentation_space(31)[name]
    bicubic = torchvision.transforms.InterpolationMode.BICUBIC
    warp = image_ops.Warp(Image.Resampling.BICUBIC, FILL)
    for i, sign in ((0, 1), (7, 1), (16, -1), (22, 1), (30, -1), (30, 1)):
        if sign == -1 and not signed:
            continue
        value = sign * float(magnitudes.reshape(-1)[i if magnitudes.ndim else 0])
        for image in photographs:
            expected = apply(image, name, value, interpolation=bicubic, fill=list(FILL))
            argument = TRIVIAL_OPS[name].argument(i / 30, sign)
            ours = image_ops.apply_op(np.array(image), name, argument, warp)
            difference = np.abs(np.asarray(ours, int) - np.asarray(expected, int))
            # torchvision's magnitudes are float32, which may move a rounding.
            assert difference.mean() < 0.02, (i, sign)
            assert difference.max() <= 1 or name == "Solarize"


def test_the_policy_of_cifar10_is_torchvisions(monkeypatch):
    theirs = torchvision.transforms.AutoAugment(torchvision.transforms.AutoAugmentPolicy.CIFAR10)
    for side in (28, 32, 224):
        ours = create_policy("cifar10", image_size=side, interpolation="bicubic", fill=FILL)
        space = theirs._augmentation_space(10, (side, side))
        assert len(ours.policy) == len(theirs.policies)
        for mine, other in zip(ours.policy, theirs.policies):
            assert [step[1] for step in mine] == [step[1] for step in other]
            for (name, _, level), (their_name, _, index) in zip(mine, other):
                magnitudes, is_signed = space[their_name]
                assert OPS[name].is_signed == is_signed
                for sign in (1, -1) if is_signed else (1,):
                    call = op_call(name, level, sign, around=ours.around, rng=None)
                    assert call.name == their_name
                    if index is None:
                        continue
                    expected = sign * float(magnitudes[index])
                    if their_name in ("Brightness", "Color", "Contrast", "Sharpness"):
                        expected += 1
                    if their_name.startswith("Translate"):
                        expected = -int(expected)
                    assert call.argument == pytest.approx(expected, abs=2e-5)


def test_sub_policies_of_cifar10_are_drawn_evenly():
    policy, rng = our_policy("cifar10"), np.random.default_rng(5)
    names = Counter(call.name for _ in range(NUM_DRAWS) for call in policy.draw(rng))
    theirs = torchvision.transforms.AutoAugment(torchvision.transforms.AutoAugmentPolicy.CIFAR10)
    expected = Counter()
    for steps in theirs.policies:
        for name, probability, _ in steps:
            expected[name] += probability * NUM_DRAWS / len(theirs.policies)
    assert set(names) == {name for name, count in expected.items() if count}
    for name, count in names.items():
        assert abs(count - expected[name]) < 5 * expected[name] ** 0.5


def test_trivial_augment_draws_evenly():
    policy = our_policy("ta_wide")
    rng = np.random.default_rng(0)
    calls = [call for _ in range(NUM_DRAWS) for call in policy.draw(rng)]
    assert len(calls) == NUM_DRAWS
    names = Counter(call.name for call in calls)
    assert set(names) == set(TRIVIAL_OPS)
    assert_same_distribution(names.elements(), list(TRIVIAL_OPS) * (NUM_DRAWS // 14))
    rotations = Counter(round(c.argument, 3) for c in calls if c.name == "Rotate")
    assert len(rotations) == 61
    # Zero has both signs.
    assert_same_distribution(
        rotations.elements(),
        [round(sign * 4.5 * i, 3) + 0.0 for i in range(31) for sign in (1, -1)] * 40,
    )


GRAMMAR_ERRORS = {
    "rand-m9-msdt0.5": "unknown key 'msdt' (did you mean 'mstd'?)",
    "rand-m9-w0": "unknown key 'w' (known: m, n, p, mstd, mmax, inc, t)",
    "rand-m9-foo": "unknown key 'foo' (known: m, n, p, mstd, mmax, inc, t)",
    "rand-m9-": "unknown key '' (known: m, n, p, mstd, mmax, inc, t)",
    "rnd-m9": "unknown policy 'rnd' (did you mean 'rand'?)",
    "randm9": "unknown policy 'randm9' (did you mean 'rand'?)",
    "": (
        "unknown policy '' (known: rand, augmix, original, originalr, v0, v0r, 3a, ta_wide, "
        "cifar10)"
    ),
    "rand-m9.5": "'m' needs a whole number, not '9.5'",
    "rand-m": "'m' needs a whole number, not ''",
    "rand-n0": "'n' needs a whole number >= 1, not '0'",
    "rand-p1.5": "'p' needs a number in [0, 1], not '1.5'",
    "rand-inc2": "'inc' needs 0 or 1, not '2'",
    "rand-mmax0": "'mmax' needs a whole number >= 1, not '0'",
    "rand-tweight": "'t' needs weights or 3a or 3aw, not 'weight'",
    "rand-m9-m8": "key 'm' is given twice; keep one of them",
    "rand-n16-tweights": (
        "'n' 16 is more than the 15 ops of set 'weights', which are drawn without repetition; "
        "lower it"
    ),
    "augmix-n3": "unknown key 'n' (known: m, w, d, a, b, mstd)",
    "augmix-a0": "'a' needs a number > 0, not '0'",
    "original-m9": "unknown key 'm' (known: mstd)",
    "cifar10-m9": "unknown key 'm' (this policy takes none)",
    "ta_wide-m9": "unknown key 'm' (this policy takes none)",
}


@pytest.mark.parametrize("text", GRAMMAR_ERRORS)
def test_grammar_is_strict(text):
    with pytest.raises(UserError) as caught:
        our_policy(text)
    assert str(caught.value) == f"auto_augment {text!r}: {GRAMMAR_ERRORS[text]}"


def test_grammar_reads_keys_in_any_order():
    expected = ("rand", {"m": 9, "mstd": 0.5, "inc": 1})
    assert parse_policy("rand-m9-mstd0.5-inc1") == expected
    assert parse_policy("rand-inc1-mstd0.5-m9") == expected


def test_global_generators_are_left_alone(photographs):
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for text in ("rand-m9-mstd0.5-inc1", "augmix", "v0", "3a", "ta_wide"):
        policy = our_policy(text, "random")
        for seed in range(5):
            first, second = (
                policy(np.array(photographs[4]), np.random.default_rng(seed)).tobytes()
                for _ in range(2)
            )
            assert first == second
    assert random.getstate() == before[0]
    np.testing.assert_equal(np.random.get_state(), before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
