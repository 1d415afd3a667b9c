"""Inputs of Huawei's offline converters, for a network that export.py wrote."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from ..args import ExportRun
from ..runtime.files import write_whole
from ..runtime.text import to_utf8
from .input_format import image_shape
from .onnx_export import INPUT

# Batches that a free one may take on an Ascend, which compiles each.
_BATCHES = (1, 2, 4, 8, 16, 32)


def input_shape(config: ExportRun) -> Tuple[int, ...]:
    """Of the exported network's input; -1 for a free batch."""
    batch = -1 if config.export.dynamic_batch else config.serving_batch()
    return (batch, *image_shape(config.serving.input, config))


def write_converter_configs(config: ExportRun, path: Path) -> List[Path]:
    """Writes FILE.converter_lite.cfg and, for ONNX and AIR, FILE.atc.sh beside `path`.

    converter_lite (MindSpore Lite, cloud side) compiles MINDIR or ONNX for Ascend 310, 310P and
    910B; atc (CANN) compiles ONNX or AIR into .om.
    """
    lite = path.with_name(f"{path.name}.converter_lite.cfg")
    write_whole(lite, to_utf8(_converter_lite(config, path)))
    if config.export.file_format == "MINDIR":
        return [lite]
    atc = path.with_name(f"{path.name}.atc.sh")
    write_whole(atc, to_utf8(_atc(config, path)))
    return [lite, atc]


def _converter_lite(config: ExportRun, path: Path) -> str:
    # The names in a MINDIR are those of construct's arguments.
    shape = ",".join(str(side) for side in input_shape(config))
    lines = [
        f"# converter_lite --fmk={'ONNX' if path.suffix == '.onnx' else 'MINDIR'} "
        f"--modelFile={path.name} --outputFile={path.stem}_ascend --saveType=MINDIR \\",
        f"#     --optimize=ascend_oriented --configFile={path.name}.converter_lite.cfg",
        "[ascend_context]",
        f"input_shape={INPUT}:[{shape}]",
        # float16, the converter's default, moves scores.
        "precision_mode=enforce_fp32",
    ]
    if config.export.dynamic_batch:
        lines.append("dynamic_dims=" + ",".join(f"[{batch}]" for batch in _BATCHES))
    return "\n".join(lines) + "\n"


def _atc(config: ExportRun, path: Path) -> str:
    shape = ",".join(str(side) for side in input_shape(config))
    framework = 5 if config.export.file_format == "ONNX" else 1
    words = [
        f"atc --framework={framework}",
        f"--model={path.name}",
        f"--output={path.stem}",
        f'--input_shape="{INPUT}:{shape}"',
        "--precision_mode=force_fp32",
        '--soc_version="${SOC_VERSION:?such as Ascend310, Ascend310P3 or Ascend910B1}"',
    ]
    if config.export.dynamic_batch:
        words.append(f'--dynamic_batch_size="{",".join(map(str, _BATCHES))}"')
    return "#!/usr/bin/env bash\n" + " \\\n    ".join(words) + "\n"
