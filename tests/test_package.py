"""The installed package: what is in the wheel, what it computes, and what importing it costs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import site
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest
from model_parity import HAS_TIMM
from test_scripts import script

import src
from src.configs.recipes import list_recipes, recipe
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "mindspore_classifiers"


def product_files() -> List[str]:
    """Files of src/ that git knows or would take, relative to src/."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name[4:] for name in done.stdout.split() if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the packages of a new environment with the wheel in it.

    It sees the packages of this environment too.
    """
    root = tmp_path_factory.mktemp("package")
    tree = root / "tree"
    # setuptools writes into the tree it builds, and would take what an older build left there.
    for name in [
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.txt",
        "requirements-obs.txt",
        "requirements-onnx.txt",
        "requirements-hub.txt",
        *(f"src/{name}" for name in product_files()),
    ]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(root), str(tree)]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    (packages,) = (root / "venv" / "lib").glob("python3*/site-packages")
    (wheel,) = root.glob("*.whl")
    install = [*pip, "--python", str(root / "venv" / "bin" / "python"), "install", *offline]
    subprocess.run([*install, str(wheel)], check=True)
    (packages / "of_the_tests.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return packages


def run(environment: Path, code: str, folder: Path) -> str:
    """What a program prints in the environment, started in another folder than the checkout."""
    python = environment.parents[2] / "bin" / "python"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["GLOG_v"] = "3"
    program = folder / "program.py"  # MindSpore compiles what it finds in a file
    program.write_text(code, encoding="utf-8")
    command = [str(python), str(program)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(environment: Path) -> None:
    installed = environment / PACKAGE
    names = [path.relative_to(installed).as_posix() for path in installed.rglob("*")]
    assert sorted(name for name in names if "__pycache__" not in name and "." in name) == (
        product_files()
    )
    beside = {path.name for path in environment.iterdir()} - {"of_the_tests.pth"}
    assert beside == {PACKAGE, f"{PACKAGE}-{src.__version__}.dist-info"}


def test_the_wheel_needs_what_requirements_txt_says(environment: Path) -> None:
    (metadata,) = environment.glob("*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    needed = [line.split()[1].split("<")[0] for line in lines if line.startswith("Requires-Dist:")]
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in listed if not line.startswith("#")]
    assert [name for name in needed if name.startswith("mindspore")] == wanted[:1]
    assert (
        len([line for line in lines if line.startswith("Requires-Dist:")])
        == len(wanted) + 3 + 5 + 1
    )
    assert {"Provides-Extra: obs", "Provides-Extra: onnx", "Provides-Extra: hub"} <= set(lines)


USE = """
import json, sys
from pathlib import Path
import numpy as np
import mindspore_classifiers
from mindspore import Tensor
from mindspore_classifiers import create_model, list_models, list_recipes, parse_args, recipe
from mindspore_classifiers.data.digits import prepare_digits
from mindspore_classifiers.kernels.build import SOURCES
from mindspore_classifiers.models.catalogue import read_catalogue
from mindspore_classifiers.data.imagenet_names import imagenet_names

network = create_model("deit_tiny_patch16_224", pretrained="deit_tiny.ckpt").set_train(False)
logits = network(Tensor(np.load("images.npy"))).asnumpy()
print(json.dumps({
    "file": mindspore_classifiers.__file__,
    "logits": logits.tolist(),
    "models": len(list_models()),
    "recipes": list_recipes(),
    "catalogue": len(list(read_catalogue())),
    "arch": parse_args(["--config", str(recipe("twin_s"))]).model.arch,
    "classes": len(imagenet_names()),
    "digits": (prepare_digits(Path("digits")), Path("digits/val/3").is_dir())[1],
    "sources": len(list(SOURCES.glob("*.cc"))),
    "others": [name for name in sys.modules if name == "src" or name.startswith("src.")],
}))
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Any, Path]:
    """timm's DeiT-Ti with random weights, and a folder with them as deit_tiny.ckpt."""
    if not HAS_TIMM:
        pytest.skip("needs torch and timm")
    import timm
    import torch

    torch.manual_seed(1)
    network = timm.create_model("deit_tiny_patch16_224").eval()
    folder = tmp_path_factory.mktemp("weights")
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(folder / "timm.npz", **weights)
    files = ["--input", str(folder / "timm.npz"), "--output", str(folder / "deit_tiny.ckpt")]
    assert script("convert_weights").main(["--arch", "deit_tiny_patch16_224", *files]) == 0
    save_digits_checkpoint(folder / "best.ckpt")
    return network, folder


def save_digits_checkpoint(path: Path) -> None:
    """What train.py says with a checkpoint of the digits, around a fresh network."""
    from src.args import parse_args, replace, to_yaml
    from src.checkpoints.checkpoint import save_checkpoint
    from src.trainer.build import build_network

    config = replace(parse_args(["--arch", "cct_2_3x2_32"]), num_classes=10, image_size=16)
    meta = {"num_classes": 10, "class_names": list("0123456789"), "config": to_yaml(config)}
    parameters = list(build_network(config).get_parameters())
    save_checkpoint(path, parameters, {"arch": "cct_2_3x2_32", **meta})


def test_an_installed_package_computes_timms_logits(
    environment: Path, reference: Tuple[Any, Path]
) -> None:
    import torch

    network, folder = reference
    images = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    np.save(folder / "images.npy", images)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    found = json.loads(run(environment, USE, folder))
    assert found["file"] == str(environment / PACKAGE / "__init__.py")
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-4)
    assert found["recipes"] == list_recipes()
    assert found["models"] == found["catalogue"] > 80
    assert (found["classes"], found["digits"]) == (1000, True)
    assert found["arch"] == "pcpvt_small_v0"
    assert found["sources"] == len(list((ROOT / "src" / "kernels" / "native").glob("*.cc")))
    assert found["others"] == []


@pytest.mark.parametrize("workers", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_page_on_python_runs_from_an_installed_package(
    environment: Path, reference: Tuple[Any, Path], workers: str
) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    code = "\n".join(blocks)
    if workers == "processes":  # as the page says: the key, and what is done under an if
        code = code.replace('"--data_url", "digits"]', '"--data_url", "digits", *PROCESSES]')
        guarded = textwrap.indent(code, "    ")
        code = f'PROCESSES = ["--python_multiprocessing"]\nif __name__ == "__main__":\n{guarded}'
        assert code.count("PROCESSES") == 2
    printed = run(environment, code, reference[1])
    assert re.search(r"^2 [0-9.]+$", printed, re.MULTILINE)
    assert printed.splitlines()[-1].startswith("top-1 ")


def test_importing_the_package_loads_nothing(tmp_path: Path) -> None:
    code = "import sys, src; print([m for m in sys.modules if m[:4] in ('src.', 'mind', 'nump')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_typed() -> None:
    assert [src.__dict__.get(name, getattr(src, name)) for name in src.__all__]
    tree = ast.parse((ROOT / "src" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {a.name: f".{node.module}" for node in block.body for a in node.names}
    assert typed == src._HOMES
    assert sorted(typed) == src.__all__
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        src.create_modle  # noqa: B018


def test_no_code_of_the_package_says_what_it_is_called() -> None:
    """The checkout calls it `src`, an installation `mindspore_classifiers`."""
    wrong = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else ""
            if isinstance(text, str) and text.startswith(("src.", PACKAGE + ".")):
                wrong.append(f"{path.name}:{node.lineno} {text}")
            if isinstance(node, ast.Import):
                wrong += [f"{path.name}:{a.name}" for a in node.names if a.name[:4] == "src."]
            if isinstance(node, ast.ImportFrom) and not node.level:
                wrong += [f"{path.name}:{node.module}"] * (str(node.module)[:4] == "src.")
    assert wrong == []


def test_recipes_by_name() -> None:
    assert recipe("convnext_tiny").read_text(encoding="utf-8").startswith("#")
    assert len(list_recipes()) == len(list((ROOT / "src" / "configs").glob("*.yaml")))
    with pytest.raises(UserError, match="'convnext_tinny': no such recipe; did you mean 'conv"):
        recipe("convnext_tinny")
    with pytest.raises(UserError, match="no such recipe"):
        recipe("../configs/convnext_tiny")
