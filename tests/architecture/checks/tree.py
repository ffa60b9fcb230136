"""Reads Python files under a root into syntax trees, and the imports in them, also those hidden in
functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

# What ships, and everything that we write.
SHIPPED = ("services", "sdk")
OURS = (*SHIPPED, "tests", "demo", "benchmarks", "soak", "tools")
SERVICES = ("api_gateway", "controlplane", "repository", "router", "runtime")
# Folders that are import roots themselves: a module's name starts below them.
IMPORT_ROOTS = ("sdk", "generated")


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@dataclass(frozen=True, slots=True)
class Module:
    """A Python file; `name` is how it is imported."""

    path: PurePosixPath
    name: str
    source: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return _parsed(self.source)

    @property
    def is_package(self) -> bool:
        """Whether it is a package's `__init__.py`."""
        return self.path.name == "__init__.py"

    def matches(self, *patterns: str) -> bool:
        """Whether one of these patterns, such as "services/*/store.py" or
        "services/runtime/formats/", has its path.
        """
        path = str(self.path)
        return any(
            path.startswith(pattern) if pattern.endswith("/") else self.path.match(pattern)
            for pattern in patterns
        )

    def at(self, node: ast.AST | int, complaint: str) -> str:
        """The complaint with its place before it."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {complaint}"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, dotted and absolute; for `from a import b` it is a.b, whatever b is.

    `for_types`: only the type checker sees it, under `if TYPE_CHECKING`.
    """

    target: str
    line: int
    for_types: bool = False

    def within(self, *packages: str) -> bool:
        """Whether it is one of these packages or something in it."""
        return any(
            self.target == package or self.target.startswith(package + ".") for package in packages
        )


def _dotted(path: PurePosixPath) -> str:
    parts = list(path.with_suffix("").parts)
    if parts[0] in IMPORT_ROOTS:
        parts = parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def modules(root: Path, folders: tuple[str, ...] = SHIPPED) -> list[Module]:
    """Every Python file in these folders, by path; caches left out."""
    found = []
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            path = PurePosixPath(file.relative_to(root).as_posix())
            if "__pycache__" not in path.parts:
                found.append(Module(path, _dotted(path), file.read_text(encoding="utf-8")))
    return found


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parent = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*parent, *([node.module] if node.module else [])])


def imports(module: Module) -> Iterator[Import]:
    """All imports of a module wherever they stand: statements, and `import_module` or `__import__`
    of a literal.
    """
    blocks = (node for node in ast.walk(module.tree) if isinstance(node, ast.If))
    typed = {
        id(inner)
        for node in blocks
        if dotted(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        for target in _targets(module, node):
            yield Import(target, getattr(node, "lineno", 1), id(node) in typed)


def _targets(module: Module, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = _absolute(module, node)
        yield from (f"{package}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and called(node).split(".")[-1] in (
        "import_module",
        "__import__",
    ):
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def dotted(node: ast.AST) -> str:
    """`a.b.c` as written, or "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def called(node: ast.Call) -> str:
    """The dotted name of what is called; a method of an expression starts with a dot."""
    return dotted(node.func)
