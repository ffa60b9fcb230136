"""Writes the README's comparison with other servers from the results of the last whole run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import facts, report

README = facts.ROOT / "README.md"
BEGIN = "<!-- comparison: written by `python -m benchmarks readme` from benchmarks/results -->"
END = "<!-- end of the comparison -->"
# The figures that stand beside another server; older results have one B3.
_SHOWN = ("B1", "B2", "B3", "B3a", "B3b", "B4", "B5")
_VALUES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "req/s": lambda values: f"{values['per_second']:,.0f} req/s",
    "ms": lambda values: f"{values['p50']:.2f} ms",
}


def block(results: Path = report.RESULTS) -> str:
    """Returns the text between the marks, from latest.json; links the profile if there is one."""
    found = json.loads((results / "latest.json").read_text())
    rows = [
        _row(figure)
        for figure in found["figures"]
        if figure["id"] in _SHOWN and figure.get("pairs") and figure.get("valid", True)
    ]
    head = ["| | Stellwerk | the other | ratio, median and range |", "|---|---:|---:|---|"]
    profiled = (results / "profile.json").is_file()
    return "\n".join([*head, *rows, "", *_method(found, profiled)])


def _row(figure: Mapping[str, Any]) -> str:
    ours, theirs = (_typical(figure, side) for side in ("ours", "theirs"))
    spread = f"**{figure['ratio']:.2f}** ({figure['lowest']:.2f} to {figure['highest']:.2f})"
    better = "more" if figure["better"] == "higher" else "less"
    return f"| {figure['title']} | {ours} | {theirs} | {spread}, {better} is better |"


def _typical(figure: Mapping[str, Any], side: str) -> str:
    """Returns the median of one side's measurements, with its unit."""
    measured = [pair[side] for pair in figure["pairs"]]
    medians = {
        key: statistics.median(one[key] for one in measured) for key in ("per_second", "p50")
    }
    return _VALUES[figure["unit"]](medians)


def _method(found: Mapping[str, Any], profiled: bool) -> list[str]:
    """Returns five lines."""
    where, versions = found["environment"], found["systems"]
    peers = ", ".join(
        f"{name} {versions[name][package]}"
        for name, package in (("MLServer", "mlserver"), ("Triton", "tritonserver"))
        if name in versions
    )
    goes = (
        "; [where the time of a request goes](docs/benchmarks/where-the-time-goes.md)"
        if profiled
        else ""
    )
    return [
        f"- Measured {found['when'][:10]} at commit {found['commit']} on {where['cpu']},"
        f" {where['cores']} cores, load generators on the same cores; beside {peers}.",
        "- REST: the same row through the same logistic regression of scikit-learn on both sides;"
        " only Stellwerk authenticates its callers. The echo computes nothing.",
        f"- The two of a row are measured in turns, {found['effort']}; the ratio is the median of"
        " the pairs' ratios.",
        "- A run in which a request fails is invalid; one answer of each system is checked for its"
        " content.",
        f"- `make bench` measures again: [all figures](benchmarks/results/latest.md),"
        f" [the method](benchmarks/README.md){goes}.",
    ]


def rewritten(readme: str, text: str) -> str:
    """Returns the README with this text between the marks; raises ValueError if it has no marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise ValueError("the README has no marks of the comparison")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{behind}"


def write(results: Path = report.RESULTS, readme: Path = README) -> None:
    """Rewrites the README's block."""
    readme.write_text(rewritten(readme.read_text(), block(results)))
