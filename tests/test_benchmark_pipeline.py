"""benchmarks/pipeline.py: every loader delivers all images with their labels; what is printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from program_options import load

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    program = load("benchmarks/pipeline.py")
    import pipeline_loader
finally:
    sys.path.pop(0)

NUM_IMAGES, BATCH, SIDE = 16, 8, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("images")
    program.write_images(root, program.Photographs(500, 375, NUM_IMAGES, BATCH))
    program.pack_images(root)
    return root


@pytest.mark.parametrize("name", list(pipeline_loader.LOADERS))
@pytest.mark.parametrize("chain", list(pipeline_loader.CHAINS))
def test_a_pass_has_every_image_with_its_label(
    folder: Path, name: str, chain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pipeline_loader.missing_package(name):
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(pipeline_loader, "IMAGE_SIZE", SIDE)
    # timm's workers are processes, which would be forked from this one.
    monkeypatch.setattr(pipeline_loader, "NUM_WORKERS", 0 if name == "timm" else 1)
    if name == "timm":  # whose table of operations the benchmark changes
        auto_augment = pytest.importorskip("timm.data.auto_augment")
        monkeypatch.setattr(auto_augment, "NAME_TO_OP", dict(auto_augment.NAME_TO_OP))
    batches = pipeline_loader.LOADERS[name].batches(folder, chain, BATCH)
    found = [next(batches)[:2] for _ in range(2 * NUM_IMAGES // BATCH)]
    if hasattr(batches, "close"):
        batches.close()
    differs = pipeline_loader.LOADERS[name].differs(chain)
    whole = np.dtype(np.uint8) if "uint8" in differs or "as ours" in differs else np.float32
    for image, _ in found:
        sides = {(BATCH, SIDE, SIDE, 3), (BATCH, 3, SIDE, SIDE)}
        assert tuple(image.shape) in sides
        assert np.asarray(image).dtype == whole
        assert np.asarray(image).std() > 0
    labels = np.concatenate([np.asarray(label) for _, label in found])
    if labels.ndim == 1:
        assert np.bincount(labels).tolist() == [2 * NUM_IMAGES // 8] * 8
    else:  # of an image mixed with another
        assert labels.shape == (2 * NUM_IMAGES, 8)
        np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-5)
        assert ((labels > labels.min(axis=1, keepdims=True)).sum(axis=1) <= 2).all()
    if chain == "eval":
        in_order = np.arange(8).repeat(NUM_IMAGES // 8)
        np.testing.assert_array_equal(labels, np.tile(in_order, 2))


def test_medians_ratios_and_differences_are_told() -> None:
    def turns(*cpu_us: float) -> Any:
        return [{"cpu_us": value, "wall_us": 500.0, "peak_mb": 100.0} for value in cpu_us]

    results: Dict[str, Any] = {"ours": turns(1000, 2000, 4000), "mindspore": turns(5000)}
    head, own, peer, *differences = program.describe(results, "full")
    assert "ours is" in head
    assert "packed is" not in head
    assert own.split() == ["ours", "500", "(250", "to", "1000)", "1.00x", "2000", "100"]
    assert peer.split()[:5] == ["mindspore", "200", "(200", "to", "200)"]
    assert peer.split()[5] == "2.50x"
    assert [line.partition(":")[0] for line in differences] == ["ours", "mindspore"]
    assert "no erasing" in differences[1]
    assert "RandAugment" not in list(program.describe(results, "plain"))[-1]


def test_a_loader_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        program, "missing_package", lambda name: "dali.whl" if name == "dali" else ""
    )
    assert program.main(["--loaders", "ours", "dali"]) == 2
    assert "--loaders dali: pip install dali.whl" in capsys.readouterr().err
