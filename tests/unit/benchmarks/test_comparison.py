"""What the README says about speed is what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import comparison, report
from benchmarks.profiling import publish
from benchmarks.profiling.page import page


def test_the_readmes_comparison_is_what_the_committed_results_say() -> None:
    readme = comparison.README.read_text()

    assert comparison.rewritten(readme, comparison.block()) == readme, (
        "run `python -m benchmarks readme`"
    )


def test_the_page_about_time_is_what_the_committed_profile_says() -> None:
    profile, written = report.RESULTS / "profile.json", publish.DOCUMENTS / publish.PAGE_NAME

    assert profile.is_file() == written.is_file()
    if profile.is_file():
        assert page(json.loads(profile.read_text())) == written.read_text()


def test_a_comparison_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    readme = f"# A\n{comparison.BEGIN}\nold\n{comparison.END}\nlast\n"

    once = comparison.rewritten(readme, "new")

    assert once == f"# A\n{comparison.BEGIN}\n\nnew\n\n{comparison.END}\nlast\n"
    assert comparison.rewritten(once, "new") == once


@pytest.mark.parametrize("readme", ["", f"{comparison.BEGIN}\n", f"{comparison.END}\n"])
def test_a_readme_without_marks_is_left_alone(readme: str) -> None:
    with pytest.raises(ValueError, match="no marks"):
        comparison.rewritten(readme, "new")


def test_figures_that_failed_or_are_invalid_are_not_compared(tmp_path: Path) -> None:
    found = json.loads((report.RESULTS / "latest.json").read_text())
    measured = next(figure for figure in found["figures"] if figure["id"] == "B1")
    found["figures"] = [
        measured,
        {**measured, "id": "B2", "title": "invalid", "valid": False},
        {"id": "B4", "reached": False, "failed": "nobody answered"},
    ]
    (tmp_path / "latest.json").write_text(json.dumps(found))

    rows = [line for line in comparison.block(tmp_path).splitlines() if line.startswith("| ")]

    assert len(rows) == 2
    assert measured["title"] in rows[1] and f"**{measured['ratio']:.2f}**" in rows[1]


def test_the_method_is_told_in_five_lines() -> None:
    assert sum(line.startswith("- ") for line in comparison.block().splitlines()) == 5
