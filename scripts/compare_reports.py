"""Show which images one of two networks gets right and the other wrong.

python scripts/compare_reports.py A B
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.report.outcomes import read_outcomes
from src.runtime.entry import CommandParser, run_command, whole
from src.runtime.text import printable
from src.trainer.metrics import difference_interval, wilson_interval

DESCRIPTION = """\
Show which images one of two networks gets right and the other wrong.

A and B are folders of eval.py --report over the same images. McNemar's test asks whether the images
that only one of them gets right are split as by chance (exact, two-sided). The 95 %
intervals are Wilson's of each score, and Bonett and Price's of their difference."""
Rows = Dict[str, Dict[str, str]]


def mcnemar(only_a: int, only_b: int) -> float:
    """Probability of a split at least as uneven, if both were equally good (McNemar 1947)."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def compare(arguments: argparse.Namespace) -> None:
    """Prints both scores, the test, and what changed most."""
    a, b = (read_outcomes(path) for path in (arguments.a, arguments.b))
    if a.keys() != b.keys():
        lost = sorted(a.keys() ^ b.keys())
        raise UserError(
            f"report {str(arguments.b)!r}: other images than {str(arguments.a)!r} ({len(lost)} are "
            f"in one only, such as {lost[0]!r}); evaluate both on the same data"
        )
    labels = [image for image in a if a[image]["label"] != b[image]["label"]]
    if labels:
        raise UserError(f"report {str(arguments.b)!r}: another label for {labels[0]!r}")
    better = [image for image in a if a[image]["correct"] < b[image]["correct"]]
    worse = [image for image in a if a[image]["correct"] > b[image]["correct"]]
    result = {
        "a": _side(arguments.a, a),
        "b": _side(arguments.b, b),
        "images": len(a),
        "better": len(better),
        "worse": len(worse),
        "difference_interval": list(difference_interval(len(better), len(worse), len(a))),
        "p_value": mcnemar(len(worse), len(better)),
        "classes": _classes(a, b),
    }
    if arguments.json:
        print(json.dumps({**result, "better_images": better, "worse_images": worse}, indent=1))
        return
    _show(result, arguments.most)
    for title, images in (("better", better), ("worse", worse)):
        for image in images[: arguments.most]:
            change = f"{a[image]['predicted']} -> {b[image]['predicted']}"
            print(printable(f"{title}: {image}  {change}"))


def _side(folder: Path, rows: Rows) -> Dict[str, Any]:
    top1 = _top1(rows)
    interval = list(wilson_interval(top1, len(rows)))
    return {"report": str(folder), "top1": top1, "top1_interval": interval}


def _top1(rows: Rows) -> float:
    return 100.0 * sum(row["correct"] == "1" for row in rows.values()) / len(rows)


def _classes(a: Rows, b: Rows) -> List[Tuple[str, float, float]]:
    """(class, top-1 in A, top-1 in B), from what got worse most to what got better most."""
    images: Dict[str, List[str]] = {}
    for image, row in a.items():
        images.setdefault(row["label"], []).append(image)
    found = [
        (name, *(_top1({image: rows[image] for image in members}) for rows in (a, b)))
        for name, members in images.items()
    ]
    return sorted(found, key=lambda entry: (entry[2] - entry[1], entry[0]))


def _show(result: Dict, most: int) -> None:
    a, b = result["a"], result["b"]
    for name, side in (("A", a), ("B", b)):
        low, high = side["top1_interval"]
        print(f"{name}  top-1 {side['top1']:.3f} % [{low:.2f}, {high:.2f}]  {side['report']}")
    low, high = result["difference_interval"]
    print(f"B - A  {b['top1'] - a['top1']:+.3f} points [{low:+.2f}, {high:+.2f}]")
    verdict = "a difference" if result["p_value"] < 0.05 else "no difference beyond chance"
    print(
        f"of {result['images']} images B gets {result['better']} right that A does not, A "
        f"{result['worse']} that B does not; McNemar p = {result['p_value']:.3g}: {verdict}"
    )
    changed = [entry for entry in result["classes"] if entry[1] != entry[2]]
    shown = changed if len(changed) <= 2 * most else [*changed[:most], *changed[-most:]]
    for name, before, after in shown:
        print(printable(f"class {name}: {before:.2f} % -> {after:.2f} % ({after - before:+.2f})"))


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("compare_reports.py", DESCRIPTION)
    parser.add_argument("a", type=Path, metavar="A", help="folder of a report")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another")
    parser.add_argument("--most", type=whole, default=10, help="rows per list (default 10)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return run_command(compare, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
