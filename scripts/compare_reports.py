"""Show which images one of two networks gets right and the other wrong.

python scripts/compare_reports.py A B
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.report.outcomes import read_outcomes
from src.runtime.entry import CommandParser, run_command, whole
from src.runtime.text import printable

DESCRIPTION = """\
Show which images one of two networks gets right and the other wrong.

A and B are folders of eval.py --report over the same images. McNemar's test asks whether the images
that only one of them gets right are split as by chance (exact, two-sided)."""
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
    scores = [_top1(rows) for rows in (a, b)]
    result = {
        "a": {"report": str(arguments.a), "top1": scores[0]},
        "b": {"report": str(arguments.b), "top1": scores[1]},
        "images": len(a),
        "better": len(better),
        "worse": len(worse),
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
    print(f"A  top-1 {a['top1']:.3f} %  {a['report']}")
    print(f"B  top-1 {b['top1']:.3f} %  {b['report']}  ({b['top1'] - a['top1']:+.3f})")
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
