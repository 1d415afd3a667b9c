"""src/models/published.csv beside timm's configurations; names of weights; their list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import List, Optional

import pytest
from digits_run import failure
from model_parity import HAS_TIMM
from published_rows import present_scores, published_ids, table
from test_scripts import script

from src.errors import UserError
from src.models import published
from src.models.catalogue import read_catalogue
from src.models.published import HUB_FILES, find_published, read_published
from src.models.registry import list_models, resolve

ROOT = Path(__file__).resolve().parent.parent
ROWS = read_published()
needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")


@needs_timm
def test_every_row_is_what_timm_says() -> None:
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    assert [row.id for row in ROWS] == published_ids()
    assert len(ROWS) == 134
    for row in ROWS:
        cfg = get_pretrained_cfg(row.id)
        transform = row.transform
        size = transform.pop("image_size")
        # What timm's users get, and what they get for its own second number.
        theirs = resolve_data_config(pretrained_cfg=cfg.to_dict())
        assert theirs == {**transform, "input_size": (3, size, size)}, row.id
        assert (row.test_image_size is None) == (cfg.test_input_size is None)
        if row.test_image_size is not None:
            tested = resolve_data_config(pretrained_cfg=cfg.to_dict(), use_test_size=True)
            assert tested["input_size"] == (3, row.test_image_size, row.test_image_size)
            assert tested["crop_pct"] == row.test_crop_pct
        assert (row.arch, row.num_classes) == (cfg.architecture, cfg.num_classes)
        assert (row.licence, row.url or "") == (cfg.license, cfg.url)
        assert (row.hub_name, None) == (cfg.hf_hub_id, cfg.hf_hub_filename)


@needs_timm
def test_the_files_at_the_hub_are_those_that_timm_asks_for() -> None:
    from timm.models import _hub

    assert HUB_FILES == (_hub.HF_SAFE_WEIGHTS_NAME, _hub.HF_WEIGHTS_NAME)


@needs_timm
def test_the_table_is_as_its_program_writes_it() -> None:
    written = (ROOT / "src" / "models" / "published.csv").read_text(encoding="utf-8")
    assert table(present_scores()) == written


def test_scores_are_near_the_authors() -> None:
    """timm measured the authors' files anew; no two of their numbers differ by more than 0.25."""
    by_id = {row.id: row for row in ROWS}
    compared = 0
    for entry in read_catalogue():
        names = [f"{entry.arch}.fb_in1k", f"{entry.arch}.in1k"]
        names += [entry.arch.replace("_in22k", ".fb_in22k")]
        for row in filter(None, map(by_id.get, names)):
            if entry.top1 is not None and entry.image_size == row.image_size:
                assert row.top1 == pytest.approx(entry.top1, abs=0.25), row.id
                compared += 1
    assert compared >= 30


def test_scores_are_there_for_imagenets_classes_alone() -> None:
    for row in ROWS:
        assert (row.top1 is not None) == (row.num_classes == 1000), row.id
        assert (row.test_top1 is not None) == (row.test_image_size is not None), row.id


def test_architectures_take_what_the_table_gives_them() -> None:
    registered = [row for row in ROWS if row.arch in list_models()]
    assert len(registered) == len(ROWS)
    for row in registered:
        values = resolve(row.arch, **row.keywords)[1]
        assert (values["num_classes"], values["img_size"]) == (row.num_classes, row.image_size)


@pytest.mark.parametrize("prefix", ["", "timm/", "hf-hub:timm/"])
def test_names(prefix: str) -> None:
    for row in ROWS:
        assert find_published(prefix + row.id) == row
    assert find_published(f"{prefix}deit_tiny_patch16_224").id == "deit_tiny_patch16_224.fb_in1k"


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        find_published(name)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"pretrained {name!r}: ")
    return line


def test_an_architecture_with_several_tags() -> None:
    line = refused("timm/convnext_nano")
    tags = [row.id.partition(".")[2] for row in ROWS if row.arch == "convnext_nano"]
    assert f"published {len(tags)} times; give convnext_nano.TAG" in line
    assert line.endswith(f"tags {', '.join(tags)}")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("convnext_tiny.fb_in22kft_in1k", "convnext_tiny.fb_in22k_ft_in1k"),
        ("timm/deit3_smal_patch16_224.fb_in1k", "deit3_small_patch16_224.fb_in1k"),
        ("twins_svt_bas", "twins_svt_base"),
        ("hf-hub:facebook/deit-tiny-patch16-224", "deit_tiny_patch16_224"),
        ("timm/timm/twins_svt_base.in1k", "twins_svt_base.in1k"),
        ("resnet50.a1_in1k", None),
        ("deit_tiny_patch16_224.", "deit_tiny_patch16_224.fb_in1k"),
        ("", None),
    ],
)
def test_an_unknown_name(name: str, near: Optional[str]) -> None:
    line = refused(name)
    assert (f"'{near}'" if near else "list_models.py --pretrained lists all") in line


def changed(lines: List[str], number: int, old: str, new: str) -> List[str]:
    assert old in lines[number]
    return [*lines[:number], lines[number].replace(old, new, 1), *lines[number + 1 :]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1000", "1e3"),
        ("1000", ""),
        ("224,", ""),
        ("0.96", "x"),
        ("center", "centre"),
        ("imagenet", ""),
        ("mit", ""),
        ("convmixer_1024_20_ks9_p14.in1k", ""),
        ("convmixer_1024_20_ks9_p14.in1k", "convmixer_768_32.in1k"),
        ("mit,", "mit,,"),
        ("mit", '"mit'),
    ],
)
def test_a_table_of_anything_else_is_refused(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (ROOT / "src" / "models" / "published.csv").read_text(encoding="utf-8").splitlines()
    monkeypatch.setattr(published, "_FILE", tmp_path / "published.csv")
    published._FILE.write_text("\n".join(changed(lines, 1, old, new)))
    with pytest.raises(ValueError, match=r"published\.csv, line"):
        read_published()
    published._FILE.write_text("\n".join(changed(lines, 0, "licence,url", "url,licence")))
    with pytest.raises(ValueError, match="expected the columns id, "):
        read_published()


# --- list_models.py --pretrained ------------------------------------------------------------------


def test_the_list_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    program = script("list_models")
    assert program.main(["--pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [row.id for row in ROWS]
    assert program.main(["--pretrained", "--filter", "ConvNeXtV2_atto"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["convnextv2_atto.fcmae", "cc-by-nc-4.0", "224", "0", "-", "-", "-", "-"],
        ["convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0", "224", "1000"]
        + ["76.644", "288", "77.794", "timm"],
    ]


def test_the_list_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    program = script("list_models")
    assert "'resnet'" in failure(capsys, program, ["--pretrained", "--filter", "resnet"])
    with pytest.raises(SystemExit, match="2"):
        program.main(["--pretrained", "--model_args"])
    assert "--model_args: not allowed with argument --pretrained" in capsys.readouterr().err


def test_the_list_needs_no_mindspore() -> None:
    command = [sys.executable, "-X", "importtime", "scripts/list_models.py", "--pretrained"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = [line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()]
    assert "src.models.published" in imported
    assert "mindspore" not in imported


@pytest.mark.parametrize("page", ["docs/weights.md", "docs/zh/weights.md"])
def test_the_pages_count_the_authors_files(page: str) -> None:
    count = sum(row.url is not None for row in read_published())
    text = (Path(__file__).resolve().parent.parent / page).read_text(encoding="utf-8")
    assert f" {count} names" in text or f"（{count} 个名称" in text
