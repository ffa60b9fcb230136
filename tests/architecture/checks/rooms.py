"""Rooms: how many modules a folder may hold, and which room may import which.

The arrows themselves are data, in `tests/architecture/rooms.py`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.checks.tree import SHIPPED, Import, Module, imports, modules

# A reader keeps about a dozen names in mind; the services had folders of 40 modules before.
MODULES_IN_A_FOLDER = 12
SENTENCE = re.compile(r"\bImports? (.+?)\.(?:\s|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class House:
    """A package whose sub-packages are rooms.

    `rooms` names each room with the rooms it may import, in an order in which no room imports a
    later one. `leaves` are modules of the package itself that every room may import; they import
    no room. All other modules of the package may import every room, and no room imports them.
    """

    rooms: Mapping[str, str]
    leaves: str = ""


def crowded(root: Path) -> list[str]:
    """Returns a complaint for each folder with more than 12 modules, `__init__.py` not counted."""
    counts = Counter(
        module.path.parent.as_posix() for module in modules(root, SHIPPED) if not module.is_package
    )
    return [
        f"{folder}: {count} modules, at most {MODULES_IN_A_FOLDER}; make a room of some of them"
        for folder, count in sorted(counts.items())
        if count > MODULES_IN_A_FOLDER
    ]


def unknown(root: Path, houses: Mapping[str, House]) -> list[str]:
    """Returns a complaint for each sub-package that the table lacks, and each it names in vain."""
    found = []
    for house, plan in houses.items():
        there = {_room_of(module.name, house) for module in modules(root) if module.is_package}
        there -= {""}
        found += [
            f"{house}.{room}: is no room of the table" for room in sorted(there - {*plan.rooms})
        ]
        found += [f"{house}.{room}: is not there" for room in sorted({*plan.rooms} - there)]
    return found


def upward(houses: Mapping[str, House]) -> list[str]:
    """Returns a complaint for each arrow of the table that points to a later room or to none."""
    found = []
    for house, plan in houses.items():
        above: set[str] = set()
        for room, targets in plan.rooms.items():
            found += [
                f"{house}: {room} may not import {target}, which is no room above it"
                for target in targets.split()
                if target not in above
            ]
            above.add(room)
    return found


def arrows(root: Path, houses: Mapping[str, House]) -> list[str]:
    """Returns a complaint for each import that the table does not allow.

    Imports for the type checker and imports inside functions count like all others.
    """
    return [
        module.at(wanted.line, f"{source or 'a leaf'} may not import {wanted.target}")
        for house, plan in houses.items()
        for module, wanted, source, target in _crossings(root, house)
        if not _allowed(plan, module, source, target)
    ]


def lapsed(root: Path, houses: Mapping[str, House]) -> list[str]:
    """Returns a complaint for each arrow of the table that no import needs any more."""
    found = []
    for house, plan in houses.items():
        used = {(source, target) for _, _, source, target in _crossings(root, house)}
        found += [
            f"{house}: no module of {room} imports {target}; take the arrow out"
            for room, targets in plan.rooms.items()
            for target in targets.split()
            if (room, target) not in used
        ]
    return found


def sentences(root: Path, houses: Mapping[str, House]) -> list[str]:
    """Returns a complaint for each room whose docstring does not name what the table allows it."""
    found = []
    packages = {module.name: module for module in modules(root) if module.is_package}
    for house, plan in houses.items():
        for room, targets in plan.rooms.items():
            if (module := packages.get(f"{house}.{room}")) is not None:
                found += _said(module, {*targets.split()}, {*plan.rooms})
    return found


def _said(module: Module, allowed: set[str], rooms: set[str]) -> Iterator[str]:
    charter = ast.get_docstring(module.tree) or ""
    if len(module.tree.body) != 1 and module.matches("services/"):
        yield module.at(1, "holds its docstring and nothing else")
    said = SENTENCE.search(charter)
    if said is None:
        yield module.at(1, 'says nothing of what it may import: "Imports a, b and c."')
    elif (named := {*re.findall(r"\w+", said[1])} & rooms) != allowed:
        yield module.at(1, f"says it imports {sorted(named)}, the table says {sorted(allowed)}")


def _allowed(plan: House, module: Module, source: str, target: str) -> bool:
    if source in plan.rooms:
        return target in plan.rooms[source].split() or target in plan.leaves.split()
    return module.name.rpartition(".")[2] not in plan.leaves.split() or target not in plan.rooms


def _crossings(root: Path, house: str) -> Iterator[tuple[Module, Import, str, str]]:
    """Yields imports from one part of a house to another: module, import, both parts.

    A part is a room, or a module of the house itself; the source is "" for such a module.
    """
    known = {module.name for module in modules(root)}
    for module in modules(root):
        if not module.name.startswith(house + "."):
            continue
        source = _part_of(module.name, house)
        for wanted in imports(module):
            target = wanted.target
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target.startswith(house + ".") and _part_of(target, house) != source:
                is_room = module.is_package or module.name.count(".") > house.count(".") + 1
                yield module, wanted, source if is_room else "", _part_of(target, house)


def _part_of(name: str, house: str) -> str:
    return name.removeprefix(house + ".").partition(".")[0]


def _room_of(package: str, house: str) -> str:
    return _part_of(package, house) if package.startswith(house + ".") else ""
