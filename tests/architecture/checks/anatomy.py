"""The same anatomy in every service, names that say something, and settings that carry no
secrets.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.checks.tree import OURS, SERVICES, Module, called, modules

PARTS = ("__init__.py", "__main__.py", "config.py", "main.py", "servicer.py")
ENTRY_STATEMENTS = 8
BANNED_NAMES = frozenset(
    ("base", "common", "core", "helper", "helpers", "manager", "managers", "misc", "util", "utils")
)
# PEP 420: two folders, one namespace; a file here would hide the other folder.
NAMESPACES = ("sdk/stellwerk", "generated/stellwerk", "generated/google")
SECRET = re.compile(r"(^|_)(key|secret|password|token)s?$")


def parts(root: Path) -> list[str]:
    """Files that a service lacks."""
    return [
        f"services/{service}/{part}: missing"
        for service in SERVICES
        for part in PARTS
        if not (root / "services" / service / part).is_file()
    ]


def charters(root: Path) -> list[str]:
    """Service packages whose `__init__.py` is anything but one docstring."""
    found = []
    for module in _service_files(root, "__init__.py"):
        if len(module.tree.body) != 1 or ast.get_docstring(module.tree) is None:
            found.append(module.at(1, "holds the charter, one docstring, and nothing else"))
    return found


def entries(root: Path) -> list[str]:
    """`__main__.py` files that do more than start the process."""
    return [
        module.at(1, f"has {len(module.tree.body)} statements, at most {ENTRY_STATEMENTS}")
        for module in _service_files(root, "__main__.py")
        if len(module.tree.body) > ENTRY_STATEMENTS
    ]


def settings(root: Path) -> list[str]:
    """`config.py` files that do not define exactly one settings class."""
    found = []
    for module in _service_files(root, "config.py"):
        classes = [node.name for node in module.tree.body if isinstance(node, ast.ClassDef)]
        if len(classes) != 1:
            found.append(
                module.at(1, f"defines {len(classes)} classes, not the one settings class")
            )
    return found


def servicers(root: Path) -> list[str]:
    """Servicers that catch errors or end calls themselves, which the guard does in one place."""
    found = []
    for module in _service_files(root, "servicer.py"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Try | ast.TryStar):
                found.append(
                    module.at(node, "a servicer has no try; raise, and let the guard answer")
                )
            elif isinstance(node, ast.Call) and called(node).split(".")[-1] in (
                "abort",
                "abort_with_status",
            ):
                found.append(
                    module.at(
                        node, "a servicer does not abort; raise an error of stellwerk.wire.errors"
                    )
                )
    return found


def secrets(root: Path) -> list[str]:
    """Settings whose name says secret and whose default is written in the code."""
    return [
        module.at(node, f"{node.target.id} is a secret and has no default")
        for module in modules(root)
        if module.path.name in ("config.py", "settings.py")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if SECRET.search(node.target.id) and node.value is not None and any(_literals(node.value))
    ]


def _literals(default: ast.expr) -> Iterator[str]:
    """Non-empty strings and bytes of a default; of a call, its positional arguments and `default`
    count.
    """
    if (
        isinstance(default, ast.Constant)
        and isinstance(default.value, str | bytes)
        and default.value
    ):
        yield str(default.value)
    elif isinstance(default, ast.Call):
        for argument in [
            *default.args,
            *(word.value for word in default.keywords if word.arg == "default"),
        ]:
            yield from _literals(argument)


def names(root: Path) -> list[str]:
    """Modules and packages whose name would attract anything."""
    return [
        module.at(1, f'"{part}" says nothing; name it for its responsibility')
        for module in modules(root, OURS)
        for part in module.path.with_suffix("").parts
        if part in BANNED_NAMES
    ]


def namespaces(root: Path) -> list[str]:
    """`__init__.py` files that would hide one half of a namespace package."""
    return [
        f"{folder}/__init__.py: must not exist, {folder} is a namespace"
        for folder in NAMESPACES
        if (root / folder / "__init__.py").exists()
    ]


def docstrings(root: Path) -> list[str]:
    """Modules that do not say what they are for."""
    return [
        module.at(1, "has no docstring that says what it is for")
        for module in modules(root, OURS)
        if ast.get_docstring(module.tree) is None and module.source.strip()
    ]


def _service_files(root: Path, name: str) -> list[Module]:
    folders = tuple(f"services/{service}" for service in SERVICES)
    return [
        module
        for module in modules(root, folders)
        if len(module.path.parts) == 3 and module.path.name == name
    ]
