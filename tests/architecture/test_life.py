"""The pages that tell the life of a request name what is there, in at most twelve steps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.planting import ROOT, expect_none
from tools.request_trace import page

PAGES = ["docs/life-of-a-request.md", "docs/life-of-an-upload.md"]


def absent(root: Path, text: str) -> list[str]:
    """Returns a complaint for each file and function that a page names and that is not there."""
    found = []
    for step in page.parse(text):
        missing = [file for file in step.files if not (root / file).is_file()]
        found += [f"step {step.number}: there is no {file}" for file in missing]
        for function in step.functions:
            if function.file not in missing and function.name not in _names(root / function.file):
                found.append(f"step {step.number}: {function.file} has no {function.name}")
    return found


def _names(path: Path) -> set[str]:
    """Returns the qualified names of a module's classes, functions and methods."""
    names: set[str] = set()

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + child.name)
                walk(child, f"{prefix}{child.name}.")
            else:
                walk(child, prefix)

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return names


@pytest.mark.parametrize("path", PAGES)
def test_what_a_page_names_is_there(path: str) -> None:
    expect_none(absent(ROOT, (ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_tells_a_life_in_at_most_twelve_steps(path: str) -> None:
    steps = page.parse((ROOT / path).read_text(encoding="utf-8"))

    assert 8 <= len(steps) <= page.MOST_STEPS
    assert all(step.functions for step in steps)


def test_a_file_and_a_function_that_are_not_there_are_found() -> None:
    text = (
        "1. `services/router/attic.py` `open`\n"
        "2. `services/router/main.py` `compose`, `compose.nothing`\n"
    )

    assert absent(ROOT, text) == [
        "step 1: there is no services/router/attic.py",
        "step 2: services/router/main.py has no compose.nothing",
    ]
