"""How long a file and a function may be. Exceptions stand here with their reason and lapse when no longer needed."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.architecture.checks.tree import OURS, SERVICES, modules

FILE_LINES = 300
FILE_LINES_AT_MOST = 350
FUNCTION_LINES = 40
MAIN_LINES = 60

# path → why it may have up to FILE_LINES_AT_MOST lines.
LONG_FILES: dict[str, str] = {}
# path::function → why it may be longer.
LONG_FUNCTIONS: dict[str, str] = {}


def files(root: Path, allowed: dict[str, str] = LONG_FILES) -> list[str]:
    """Files over their limit, and exceptions that nothing needs."""
    found = []
    for module in modules(root, OURS):
        lines = module.source.count("\n")
        limit = FILE_LINES_AT_MOST if str(module.path) in allowed else FILE_LINES
        if lines > limit:
            found.append(module.at(lines, f"{lines} lines, at most {limit}"))
        elif str(module.path) in allowed and lines <= FILE_LINES:
            found.append(module.at(lines, "needs no exception from the file length any more"))
    return found


def functions(root: Path, allowed: dict[str, str] = LONG_FUNCTIONS) -> list[str]:
    """Functions over their limit, their docstring not counted."""
    found = []
    for module in modules(root, OURS):
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and f"{module.path}::{node.name}" not in allowed
            ):
                lines = _lines(node)
                if lines > FUNCTION_LINES:
                    found.append(module.at(node, f"{node.name} has {lines} lines, at most {FUNCTION_LINES}"))
    return found


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def composition_roots(root: Path) -> list[str]:
    """`main.py` files that do more than compose."""
    return [
        module.at(1, f"main.py has {lines} lines, at most {MAIN_LINES}")
        for service in SERVICES
        for module in modules(root, (f"services/{service}",))
        if module.path.name == "main.py" and (lines := module.source.count("\n")) > MAIN_LINES
    ]
