"""The README's map and Compose's env files agree with the code; each violation planted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import documents
from tests.architecture.checks.tree import SERVICES
from tests.architecture.planting import ROOT, copy, expect_none

INITS = [f"services/{service}/__init__.py" for service in SERVICES]


def test_the_readme_describes_each_service_as_its_charter_does() -> None:
    expect_none(documents.service_map(ROOT))


def test_every_env_file_parses() -> None:
    assert list((ROOT / "compose").rglob("*.env"))
    expect_none(documents.env_files(ROOT))


def test_a_service_that_the_readme_lacks_is_found(tmp_path: Path) -> None:
    root = copy(tmp_path, "README.md", *INITS)
    readme = root / "README.md"
    readme.write_text(
        "".join(line for line in readme.read_text().splitlines(True) if "`router`" not in line)
    )

    assert documents.service_map(root) == [
        "README.md: the table of services has no row for `router`"
    ]


def test_a_charter_in_other_words_is_found(tmp_path: Path) -> None:
    root = copy(tmp_path, "README.md", *INITS)
    (root / "services/router/__init__.py").write_text('"""Bakes bread."""\n')

    found = documents.service_map(root)

    assert len(found) == 1
    assert "`router` is described as" in found[0]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("STELLWERK_LOG_LEVLE=info", "no setting of router is called STELLWERK_LOG_LEVLE"),
        ("STELLWERK_LOG_LEVLE_FILE=/run/secrets/x", "is called STELLWERK_LOG_LEVLE_FILE"),
        ("STELLWERK_LOG_LEVEL=loud", "STELLWERK_LOG_LEVEL: "),
        ("just words", "is no NAME=value"),
    ],
)
def test_a_planted_line_of_an_env_file_is_found(tmp_path: Path, line: str, finding: str) -> None:
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose/router.env").write_text(
        f"# A comment\nSTELLWERK_LOG_FORMAT=json\n{line}\n"
    )

    found = documents.env_files(tmp_path)

    assert len(found) == 1
    assert finding in found[0]
