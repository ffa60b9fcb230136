"""Each file, class and function that a walk-through names exists; a name that does not is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import pages
from tests.architecture.planting import ROOT, expect_none

WALKTHROUGHS = "docs/walkthroughs/*.md"


def test_every_walkthrough_names_what_exists() -> None:
    assert list(ROOT.glob(WALKTHROUGHS))
    expect_none(pages.missing(ROOT, WALKTHROUGHS))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Open `services/store.py`.", "names the file services/store.py, which does not exist"),
        ("Raise `VersionGone`.", "names VersionGone, which no file defines"),
        ("Call `Models.vanish`.", "names Models.vanish, which no file defines"),
        ("Call `vanish_all()`.", "names vanish_all(), which no file defines"),
        ("See [the page](../nowhere.md).", "links to ../nowhere.md, which does not exist"),
    ],
)
def test_a_planted_name_that_leads_nowhere_is_found(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "models.py").write_text("class Models:\n    def find(self): ...\n")
    (tmp_path / "docs" / "page.md").write_text(f"# Page\n\n`Models.find` is there. {text}\n")

    assert pages.missing(tmp_path, "docs/*.md") == [f"docs/page.md: {complaint}"]


def test_a_name_from_a_code_block_of_the_page_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("`Fresh` is new:\n\n```python\nclass Fresh: ...\n```\n")

    assert pages.missing(tmp_path, "*.md") == []
