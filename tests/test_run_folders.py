"""A run among the images is no class, and nobody is told to delete it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from src.data.image_folder import list_classes, scan_image_folder
from src.data.run_folders import holds_runs
from src.errors import UserError
from src.runs.lock import held
from src.runs.records import Records


def add_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    Records(folder / "metrics.csv", first_step=0).close()
    for name in ("config.yaml", "last.ckpt"):
        (folder / name).touch()
    Image.new("RGB", (8, 8)).save(folder / "curves.png")


def add_class(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{index}.png")


@pytest.mark.parametrize("place", ["outputs/cct_2_3x2_32", "run1", "runs/a"])
def test_a_run_beside_the_classes_is_left_out_and_named(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat", "dog"):
        add_class(tmp_path / name)
    add_run(tmp_path / place)
    with caplog.at_level(logging.INFO):
        folder = scan_image_folder(tmp_path, "train", val_share=0.4)
    assert folder.class_names == list_classes(tmp_path) == ["cat", "dog"]
    assert len(folder) == 4
    top = tmp_path / place.split("/")[0]
    assert [r.message for r in caplog.records if "run" in r.message] == [
        f"{top}: holds a run; not a class, and left out"
    ]


def test_a_run_that_has_only_begun_is_one(tmp_path: Path) -> None:
    add_class(tmp_path / "cat")
    with held(tmp_path / "outputs" / "arch"):
        assert list_classes(tmp_path) == ["cat"]


def test_a_class_stays_one(tmp_path: Path) -> None:
    """One with a recipe in it, with folders in it, or with a run and images."""
    add_class(tmp_path / "cat")
    (tmp_path / "cat" / "config.yaml").touch()
    add_class(tmp_path / "dog" / "more")
    add_class(tmp_path / "owl")
    add_run(tmp_path / "owl" / "run")
    (tmp_path / "bee").mkdir()
    assert list_classes(tmp_path) == ["bee", "cat", "dog", "owl"]
    with pytest.raises(UserError, match="no images") as caught:
        scan_image_folder(tmp_path, "train", val_share=0.4)
    assert "delete" not in str(caught.value)


def test_a_folder_of_images_is_not_listed_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand classes on a network disk."""
    add_class(tmp_path / "cat")
    if os.stat(tmp_path / "cat").st_nlink != 2:
        pytest.skip("this file system does not count the folders in a folder")
    monkeypatch.setattr(os, "scandir", None)
    assert not holds_runs(str(tmp_path / "cat"))
