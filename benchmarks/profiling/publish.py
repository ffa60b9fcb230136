"""Keeps a measured profile as JSON, and writes its page and its chart."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import facts
from benchmarks.profiling.page import CHART_NAME, chart_data, page
from benchmarks.profiling.run import Effort
from benchmarks.venvs import CHARTS

PAGE_NAME = "where-the-time-goes.md"
DOCUMENTS = facts.ROOT / "docs" / "benchmarks"
_DRAWER = Path(__file__).parent / "chart.py"


def publish(
    levels: list[dict[str, Any]],
    effort: Effort,
    about: dict[str, Any],
    results: Path,
    documents: Path,
) -> str:
    """Writes profile.json below `results`, page and chart below `documents`; returns the page."""
    profile = {**about, "effort": asdict(effort), "levels": levels}
    results.mkdir(parents=True, exist_ok=True)
    documents.mkdir(parents=True, exist_ok=True)
    (results / "profile.json").write_text(json.dumps(profile, indent=1) + "\n")
    text = page(profile)
    (documents / PAGE_NAME).write_text(text)
    _draw(profile, documents / CHART_NAME)
    return text


def _draw(profile: dict[str, Any], target: Path) -> None:
    CHARTS.ensure()
    with tempfile.TemporaryDirectory() as directory:
        bars = Path(directory) / "bars.json"
        bars.write_text(json.dumps(chart_data(profile)))
        command = [str(CHARTS.bin / "python"), str(_DRAWER), str(bars), str(target)]
        subprocess.run(command, check=True)
