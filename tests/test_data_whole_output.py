"""The whole training output against timm 1.0.31, given what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor
from photographs import load_photographs
from PIL import Image
from test_data_auto_augment import timm_operation
from test_data_mixup import timm_mix
from test_data_transforms import timm_crop
from torch_oracle import torch

from src.data.augment.auto_augment import create_policy
from src.data.augment.batch_transform import BatchTransform, EraseBoxes
from src.data.augment.mixup import Mixing, draw_mix
from src.data.augment.random_erasing import RandomErasing
from src.data.augment.resampling import draw_filter
from src.data.augment.transforms import create_train_transforms, draw_crop_box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The sides, classes and mean of the functions imported above.
SIZE, NUM_CLASSES, FILL = 37, 7, (124, 116, 104)
SCALE, RATIO, POLICY = (0.08, 1.0), (3 / 4, 4 / 3), "rand-m9-mstd0.5-inc1"
BATCH = 8


def our_batch(photographs, labels, mix):
    transforms = create_train_transforms(
        SIZE,
        scale=SCALE,
        ratio=RATIO,
        interpolation="bicubic",
        hflip=0.5,
        auto_augment=POLICY,
        mean=MEAN,
    )
    erasing = RandomErasing(SIZE, 0.5, "const", 1)
    images, boxes = [], []
    for seed, photograph in enumerate(photographs):
        rng, pixels = np.random.default_rng(seed), np.array(photograph)
        for transform in transforms:
            pixels = transform(pixels, rng)
        images.append(pixels)
        boxes.append(erasing.draw(rng).reshape(-1))
    assert 0 < sum(box.any() for box in boxes) < BATCH
    erase = EraseBoxes(SIZE, max_count=1, mode="const")
    transform = BatchTransform(
        BATCH, SIZE, num_classes=NUM_CLASSES, mean=MEAN, std=STD, label_smoothing=0.1, erase=erase
    )
    rows = np.concatenate([mix, np.stack(boxes)], axis=1)
    outputs = transform(Tensor(np.stack(images)), Tensor(labels), Tensor(rows))
    return [output.asnumpy() for output in outputs], boxes


def timm_image(photograph, seed):
    """Crop, flip and policy by timm's own functions, with the numbers that ours draws."""
    rng = np.random.default_rng(seed)
    box = draw_crop_box(photograph.width, photograph.height, scale=SCALE, ratio=RATIO, rng=rng)
    draw_filter("bicubic", rng)
    image = Image.fromarray(timm_crop(photograph, box, SIZE, "bicubic"))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    policy = create_policy(POLICY, image_size=SIZE, interpolation="bicubic", fill=FILL)
    for call in policy.draw(rng):
        image = timm_operation(call)(image)
    return np.array(image)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_training_output_equals_timm(monkeypatch, mode):
    photographs = [image.resize((150, 110)) for image in load_photographs()]
    photographs = [photographs[i % len(photographs)] for i in range(BATCH)]
    labels = np.arange(BATCH, dtype=np.int32) % NUM_CLASSES
    mixing = Mixing(0.8, 1.0, mixup_mode=mode)
    mix = draw_mix(mixing, BATCH, SIZE, rng=np.random.default_rng(4))
    (image, target), boxes = our_batch(photographs, labels, mix)
    theirs = np.stack([timm_image(photograph, i) for i, photograph in enumerate(photographs)])
    normalized = torch.from_numpy(theirs).permute(0, 3, 1, 2).float() / 255
    normalized = (normalized - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    for i, box in enumerate(boxes):
        x0, y0, x1, y1 = box[:4].astype(int)
        normalized[i, :, y0:y1, x0:x1] = 0
    monkeypatch.setattr("test_data_mixup.torch_normalize", lambda _: normalized.clone())
    expected, expected_target = timm_mix(monkeypatch, theirs, labels, mix, mode, 0.1)
    in_levels = np.abs(image - expected) * 255 * np.reshape(STD, (1, 3, 1, 1))
    # The bytes are the same, and float32 rounds.
    assert in_levels.max() < 0.001
    np.testing.assert_allclose(target, expected_target, atol=1e-6)
