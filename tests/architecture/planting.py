"""Plants a violation in a copy of a few folders and says what a check finds that it did not find
before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".mypy_cache")


def expect_none(findings: list[str]) -> None:
    """Fails with all findings, one a line, if there are any."""
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)


def copy(target: Path, *paths: str) -> Path:
    """Copies these files and folders of the repository to the same places under `target`; absent
    ones are left out.
    """
    for path in paths:
        source = ROOT / path
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / path, ignore=IGNORED, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy(source, target / path)
    return target


def new_findings(check: Callable[[Path], list[str]], root: Path, path: str, text: str) -> list[str]:
    """What the check says after this text was added to the end of the file, and did not say
    before.
    """
    before = set(check(root))
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    old = file.read_text(encoding="utf-8") if file.is_file() else '"""A module."""\n'
    file.write_text(f"{old}\n{text}\n", encoding="utf-8")
    return [finding for finding in check(root) if finding not in before]
