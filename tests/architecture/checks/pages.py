"""Pages of documentation that name files, classes and functions: each must exist.

Inline code is read, such as `sdk/stellwerk/wire/errors.py` or `Models.version_document`, and links
to files. A name that the page itself introduces must stand in one of its code blocks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.architecture.checks.tree import SHIPPED, modules

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+|[\w-]+\.(?:md|py|toml)")
NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?")
WORD = re.compile(r"[A-Za-z_]\w*")
# What a page may name by its word alone: a shell's and Python's own words, libraries, RPC systems.
FOREIGN = frozenset(("make", "pip", "curl", "python", "git", "null", "true", "false"))


def missing(root: Path, pages: str) -> list[str]:
    """Returns a complaint for each name and link in the pages matching the pattern `pages` that
    leads nowhere.
    """
    return [
        f"{page.relative_to(root)}: {complaint}"
        for page in sorted(root.glob(pages))
        for complaint in _missing(root, page)
    ]


def _missing(root: Path, page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    introduced = set(WORD.findall("\n".join(FENCED.findall(text))))
    prose = FENCED.sub("", text)
    for link in LINK.findall(prose):
        if not (page.parent / link).exists():
            yield f"links to {link}, which does not exist"
    for code in INLINE.findall(prose):
        if PATH.fullmatch(code):
            if not _is_file(root, code) and f"`{code}`:\n\n```" not in text:
                yield f"names the file {code}, which does not exist"
        elif (match := NAME.fullmatch(code)) and not _is_known(root, match[1], introduced):
            yield f"names {code}, which no file defines"


def _is_file(root: Path, path: str) -> bool:
    """Returns whether the path, or one that ends with it, exists."""
    return (root / path).exists() or any(root.glob(f"services/**/{path}"))


def _is_known(root: Path, name: str, introduced: set[str]) -> bool:
    first, *rest = name.split(".")
    if first in FOREIGN or first in introduced:
        return True
    if first in ("services", "stellwerk", "tests"):
        path = name.replace(".", "/")
        return any(
            (root / folder / f"{path}{end}").exists()
            for folder in ("", "sdk", "generated")
            for end in ("", ".py")
        ) or _is_known(root, name.rpartition(".")[2], introduced)
    defined = _definitions(root)
    if rest and first[0].isupper():
        return f"{first}.{rest[0]}" in defined
    return bool(rest) or first in defined


@cache
def _definitions(root: Path) -> frozenset[str]:
    """Returns every name that our code and contract define: classes, functions, parameters,
    variables, attributes, members as "Class.member", and words used as constants.
    """
    found: set[str] = set()
    for module in modules(root, SHIPPED):
        for node in ast.walk(module.tree):
            found |= set(_defined(node))
    for proto in root.glob("protos/**/*.proto"):
        code = re.sub(r"//.*", "", proto.read_text(encoding="utf-8"))
        found |= set(WORD.findall(code))
    return frozenset(found)


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    if isinstance(node, ast.ClassDef):
        for member in ast.walk(node):
            yield from (f"{node.name}.{name}" for name in _targets(member))
    yield from _targets(node)
    # Log events, entry points and settings' values.
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
