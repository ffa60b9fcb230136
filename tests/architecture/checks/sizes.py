"""How long a file and a function may be. Exceptions stand here with their reason and lapse when no
longer needed.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.architecture.checks.tree import OURS, SERVICES, modules

FILE_LINES = 300
# A test file is a list of sentences that are read one at a time.
TEST_FILE_LINES = 400
FILE_LINES_AT_MOST = 350
FUNCTION_LINES = 40
MAIN_LINES = 120

# path → why it may have up to FILE_LINES_AT_MOST lines.
LONG_FILES: dict[str, str] = {}
# path::function → why it may be longer.
LONG_FUNCTIONS: dict[str, str] = {}


def files(root: Path, allowed: dict[str, str] = LONG_FILES) -> list[str]:
    """Files over their limit, and exceptions that nothing needs."""
    found = []
    for module in modules(root, OURS):
        lines = module.source.count("\n")
        usual = TEST_FILE_LINES if module.matches("tests/") else FILE_LINES
        limit = FILE_LINES_AT_MOST if str(module.path) in allowed else usual
        if lines > limit:
            found.append(module.at(lines, f"{lines} lines, at most {limit}"))
        elif str(module.path) in allowed and lines <= usual:
            found.append(module.at(lines, "needs no exception from the file length any more"))
    return found


def functions(root: Path, allowed: dict[str, str] = LONG_FUNCTIONS) -> list[str]:
    """Functions whose code, without signature and docstring, is over its limit, and exceptions that
    nothing needs.
    """
    found, needed = [], set()
    for module in modules(root, OURS):
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and _lines(node) > FUNCTION_LINES
            ):
                name = f"{module.path}::{node.name}"
                needed.add(name)
                if name not in allowed:
                    found.append(
                        module.at(
                            node, f"{node.name} has {_lines(node)} lines, at most {FUNCTION_LINES}"
                        )
                    )
    return found + [
        f"{name}: needs no exception from the function length"
        for name in sorted(set(allowed) - needed)
    ]


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    code = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (node.end_lineno or 0) - code[0].lineno + 1 if code else 0


def composition_roots(root: Path) -> list[str]:
    """`main.py` files that do more than compose."""
    return [
        module.at(1, f"main.py has {lines} lines, at most {MAIN_LINES}")
        for service in SERVICES
        for module in modules(root, (f"services/{service}",))
        if module.path.name == "main.py" and (lines := module.source.count("\n")) > MAIN_LINES
    ]
