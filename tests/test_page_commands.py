"""Every command of the pages that exist in two languages works. Both have the same commands, as
test_languages.py says. Those that test_documentation.py and test_tutorial.py run are left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Dict, List

import pytest
from imagenet_archives import write_archives
from test_documentation import (  # noqa: F401
    TRIED,
    clone,
    commands,
    failures_of,
    prepare,
    runnable,
)
from test_languages import COMPARED, name_of
from test_rank_table import table_of, template2

RECIPE = "src/configs/cct_2_3x2_32_digits.yaml"
SMALL = "src/configs/finetune.yaml --batch_size 16"
BEST = "outputs/cct_2_3x2_32/best.ckpt"

# What a command becomes, part by part: names that the reader puts in, and less work.
PARTS: Dict[str, str] = {
    "--config FILE.yaml": f"--config {RECIPE}",
    "--pretrained FILE.ckpt": f"--pretrained {BEST}",
    "export.py ...": f"export.py --config {RECIPE} --pretrained {BEST}",
    "--config ...": f"--config {SMALL} --train_url packed_run",
    "BEST.ckpt": BEST,
    "--input FOLDER": "--input data/digits/val/3",
    " CONFIG": f" {RECIPE}",
    "prepare_imagenet.py": "prepare_imagenet.py --allow_partial",
    "src/configs/convmixer_1536_20.yaml --data_url data/": f"{SMALL} --data_url data/",
    "CIFAR10 --data_url data/cifar10": "Digits --data_url data/digits --images_per_shard 2000",
    "2000 --output data/packed": "2000 --output digits",
    "--arch A --input X.pth": "--arch deit_tiny_patch16_224 --input twelve.pth",
    "--data_url DIR": "--data_url twelve",
    "cct_7_3x1_32_cifar10_300epochs.pth": "cct_7.safetensors",
    "--class_names FILE": "--class_names twelve.txt",
    "rank_table.py make": "rank_table.py make --hccn_conf hccn.conf",
    "/user/config": "user_config",
    "obs://bucket": "file://$PWD/bucket",
    "--device_target Ascend": "--device_target CPU",
    "--cache_dir /cache": "--cache_dir cache",
    "--batch_size 32": "--batch_size 32 --train_url outputs/two --epochs 1",
    # Each run has a folder of its own, and few images.
    "finetune.yaml --data_url pets": f"{Path(SMALL).name} --data_url pets",
    "--val_share 0.1 --train_url run": "--val_share 0.1 --train_url pets_run",
    "finetune.yaml --data_url scenes": f"{Path(SMALL).name} --data_url scenes",
    "--best_metric map --train_url run": "--best_metric map --train_url scenes_run",
    "--output data/multi": "--output data/multi --train 128 --val 64",
    "--image_size 56 --epochs 10": "--image_size 56 --epochs 1",
    "finetune.yaml --set WebDataset --data_url s3://bucket/shards --train_url run": (
        f"{Path(SMALL).name} --set WebDataset --data_url shards --train_url shards_run"
    ),
    "--output data/long_tail": "--output data/long_tail --largest 100",
    "--epochs 20 --eval_every 0": "--epochs 1 --eval_every 0",
    "data/my_images": "data/imagenet",
    "three_of_ten": "data/imagenet",
    " a/last.ckpt": f" {BEST}",
    " b/last.ckpt": f" {BEST}",
    "--pretrained WEIGHTS.ckpt": "--pretrained outputs/weighted/last.ckpt --train_url probe",
    "step_memory.py": "step_memory.py convnext_atto --shallow --batch_size 2 --steps 1",
}


def of_page(command: str) -> str:
    """The command with small inputs; --dry_run in the place of devices, -h of what installs, and
    --print_config of what needs ImageNet."""
    if "pip install" in command:
        return "python -m pip install -h"
    if "run_tests.sh" in command:
        return "bash scripts/run_tests.sh -h"
    if command.startswith("main "):  # the C++ program; tests/test_inference_chain.py runs it
        return ":"
    for part, small in PARTS.items():
        command = command.replace(part, small)
    if "IMAGENET" in command:
        return f"{command} --print_config"
    if "_ascend.sh" in command or "_gpu.sh" in command:
        return f"{command} --dry_run"
    return runnable(command)


def commands_of_pages() -> List[str]:
    elsewhere = (*TRIED, "docs/tutorial.md")
    known = [command for page in elsewhere for command in commands(page)]
    known += [command.replace(".venv/bin/", "") for command in known]
    found = [command for path in COMPARED for command in commands(name_of(path))]
    return [command for command in dict.fromkeys(found) if command not in known]


def write_inputs(root: Path) -> None:
    """Archives, tables and weights that the commands name."""
    write_archives(root)
    addresses = "".join(f"address_{card}=192.168.100.{card + 1}\n" for card in range(8))
    (root / "hccn.conf").write_text(addresses)
    table = table_of(1, 8)
    table["server_list"][0]["server_id"] = "10.0.0.2"
    for card in table["server_list"][0]["device"]:
        card["device_ip"] = card["device_ip"].replace("192.168.0", "192.168.200")
    (root / "host2.json").write_text(json.dumps(table))
    (root / "user_config").mkdir()
    (root / "user_config" / "jobstart_hccl.json").write_text(json.dumps(template2()))
    shutil.copytree(root / "my_folder", root / "bucket" / "imagenet")
    (root / "bucket" / "recipes").mkdir()
    recipe = (root / "src" / "configs" / "finetune.yaml").read_text()
    (root / "bucket" / "recipes" / "convnext.yaml").write_text(
        "\n".join(line for line in recipe.splitlines() if not line.startswith("epochs:"))
        + "\nepochs: 1\n"
    )
    write_lists(root)
    names = [f"class_{index}" for index in range(12)]
    for name in names:
        shutil.copytree(root / "my_folder" / "val" / "cats", root / "twelve" / "train" / name)
        shutil.copytree(root / "my_folder" / "val" / "cats", root / "twelve" / "val" / name)
    (root / "twelve.txt").write_text("\n".join(names) + "\n")


def write_lists(root: Path) -> None:
    """The same images with labels in lists, of one and of several, and in tar shards."""
    found = [path.relative_to(root / "my_folder" / "train") for path in images_in(root, "train")]
    for name in ("pets", "scenes"):
        shutil.copytree(root / "my_folder" / "train", root / name)
    lines = [f"{path},{path.parent.name}" for path in found]
    (root / "pets" / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    lines += [f"{lines[0]}|dogs", f"{found[1]},"]
    for name, kept in (("train", lines[2:]), ("val", lines[:8])):
        (root / "scenes" / f"{name}.csv").write_text("\n".join(["path,labels", *kept]) + "\n")
    for split in ("train", "val"):
        (root / "shards" / split).mkdir(parents=True)
        with tarfile.open(root / "shards" / split / "0.tar", "w") as tar:
            for number, path in enumerate(images_in(root, split)):
                label = root / "label.cls"
                label.write_text(path.parent.name)
                tar.add(path, f"{number:05d}.jpg")
                tar.add(label, f"{number:05d}.cls")


def images_in(root: Path, split: str) -> List[Path]:
    return sorted((root / "my_folder" / split).rglob("*.jpg"))


def write_weights(root: Path) -> None:
    """As their authors call the files."""
    timm = pytest.importorskip("timm")
    import mindspore
    import torch

    from src.models.registry import create_model

    torch.save(
        timm.create_model("deit_tiny_patch16_224", num_classes=12).state_dict(), root / "twelve.pth"
    )
    for name, file in (
        ("convmixer_768_32", "convmixer_768_32_ks7_p7_relu.pth.tar"),
        ("convnext_tiny", "convnext_tiny_1k_224_ema.pth"),
        ("twins_pcpvt_small", "twins_pcpvt_small.pth"),
    ):
        torch.save(timm.create_model(name).state_dict(), root / file)
    mindspore.save_checkpoint(create_model("cct_7_3x1_32"), str(root / "cct_7.ckpt"))


def test_no_placeholder_is_left_in_a_command() -> None:
    found = [command for command in map(of_page, commands_of_pages()) if "-h" not in command]
    assert len(found) > 10
    left = re.compile(r"(?<= )(\.\.\.|A|CONFIG|DIR|FILE[.\w]*|FOLDER|BEST\S*)(?= |$)")
    assert [command for command in found if left.search(command)] == []


# Minutes: every command starts its own process and compiles its own graphs.
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_of_the_pages_works(clone: Path) -> None:  # noqa: F811
    from torch_oracle import torch  # noqa: F401

    prepare(clone)
    write_inputs(clone)
    write_weights(clone)
    before = [
        f"python train.py --config {RECIPE}",
        "python scripts/convert_weights.py --arch cct_7_3x1_32 --input cct_7.ckpt "
        "--output cct_7.safetensors --to torch",
    ]
    path = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    tried = [*before, *map(of_page, commands_of_pages())]
    failures = failures_of(tried, clone, PATH=path)
    assert not failures, "\n\n".join(failures)
    assert (clone / "report" / "report.html").is_file()
