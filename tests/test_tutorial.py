"""The notebook has the tutorial's commands, and leads where it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import lite
import nbformat
import pytest
from nbclient import NotebookClient
from test_documentation import clone, commands  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def cells(notebook: Any) -> List[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_has_the_commands_of_the_page() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    lines = [line for cell in cells(notebook) for line in cell.source.splitlines()]
    assert [line[1:] for line in lines if line.startswith("!")] == commands("docs/tutorial.md")


def shrunk(root: Path) -> None:
    """A short start, and a short training from it; the environments are there already."""
    for name, before, after in (
        ("cct_2_3x2_32_digits.yaml", "epochs: 20", "epochs: 2"),
        ("finetune.yaml", "epochs: 10", "epochs: 2"),
    ):
        path = root / "src" / "configs" / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))


def is_set_up(line: str) -> bool:
    return "pip install" in line or line.startswith("!python3.9")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_leads_where_it_says(
    clone: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shrunk(clone)
    monkeypatch.setenv("LITE_HOME", str(lite.lite_home()))
    (clone / ".venv20").symlink_to(Path(lite.python_of_ms20()).parents[1])
    notebook = nbformat.read(clone / "docs" / "tutorial.ipynb", as_version=4)
    for cell in cells(notebook):
        kept = [line for line in cell.source.splitlines() if not is_set_up(line)]
        cell.source = "\n".join(kept)
    start = "!.venv/bin/python train.py --config src/configs/cct_2_3x2_32_digits.yaml "
    cells(notebook)[0].source += f"\n{start}--train_url outputs/quickstart"
    place: Dict[str, Any] = {"metadata": {"path": str(clone / "docs")}}
    done = NotebookClient(notebook, timeout=900, resources=place).execute()
    text = json.dumps(done)
    scores = re.findall(r"[^-]top-1 ([\d.]+) %[^\\\"]* (\S+/(?:best\.ckpt|net\.onnx))", text)
    (score,) = {score for score, _ in scores}
    assert {Path(path).name for _, path in scores} == {"best.ckpt", "net.onnx"}
    (top1,) = re.findall(r"Top1 acc: ([\d.]+)", text)
    assert 100 * float(top1) == pytest.approx(float(score), abs=1e-3)
    assert (clone / "outputs" / "tutorial" / "report" / "report.html").is_file()
    shown = [output.get("data", {}) for cell in cells(done) for output in cell.outputs]
    assert sum("image/png" in data for data in shown) == 2
