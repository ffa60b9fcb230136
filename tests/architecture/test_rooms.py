"""Rooms and their arrows, in the repository and with a violation planted in a copy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.architecture.checks import rooms
from tests.architecture.checks.rooms import House
from tests.architecture.planting import ROOT, copy, expect_none, new_findings
from tests.architecture.rooms import HOUSES


@pytest.mark.parametrize(
    "check",
    [rooms.unknown, rooms.arrows, rooms.lapsed, rooms.sentences],
    ids=lambda check: check.__name__,
)
def test_the_rooms_keep_to_their_arrows(check) -> None:
    expect_none(check(ROOT, HOUSES))


def test_no_folder_is_crowded() -> None:
    expect_none(rooms.crowded(ROOT))


def test_no_arrow_of_the_table_points_upward() -> None:
    expect_none(rooms.upward(HOUSES))


def test_a_planted_upward_arrow_is_found() -> None:
    houses = {"services.x": House({"first": "second", "second": ""})}

    found = rooms.upward(houses)

    assert found == ["services.x: first may not import second, which is no room above it"]


@pytest.mark.parametrize("house", [house for house, plan in HOUSES.items() if len(plan.rooms) > 1])
def test_a_planted_import_of_a_later_room_is_found(tmp_path: Path, house: str) -> None:
    plan = HOUSES[house]
    first, last = next(iter(plan.rooms)), next(reversed(plan.rooms))
    folder = house.replace(".", "/")
    folder = f"sdk/{folder}" if house.startswith("stellwerk.") else folder
    root = copy(tmp_path, folder)
    check = partial(rooms.arrows, houses={house: plan})

    found = new_findings(check, root, f"{folder}/{first}/new.py", f"from {house} import {last}")

    assert len(found) == 1
    assert f"{first} may not import {house}.{last}" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "from services.router.calls import invocations",
        "def f():\n    from services.router.calls import invocations",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import services.router.calls",
        "from ..calls import invocations",
        "import services.router.main",
    ],
)
def test_a_wrong_import_is_found_wherever_it_hides(tmp_path: Path, text: str) -> None:
    root = copy(tmp_path, "services/router")

    found = new_findings(
        partial(rooms.arrows, houses=HOUSES), root, "services/router/queueing/new.py", text
    )

    assert len(found) == 1
    assert "services/router/queueing/new.py" in found[0]
    assert "queueing may not import" in found[0]


def test_a_leaf_that_imports_a_room_is_found(tmp_path: Path) -> None:
    root = copy(tmp_path, "services/router")
    check = partial(rooms.arrows, houses=HOUSES)

    found = new_findings(
        check, root, "services/router/config.py", "from services.router import calls"
    )

    assert len(found) == 1
    assert "a leaf may not import services.router.calls" in found[0]


def test_a_thirteenth_module_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "services/router/queueing"
    folder.mkdir(parents=True)
    for number in range(12):
        (folder / f"part_{number}.py").write_text('"""A part."""\n')

    found = new_findings(rooms.crowded, tmp_path, "services/router/queueing/new.py", "x = 1")

    assert found == [
        "services/router/queueing: 13 modules, at most 12; make a room of some of them"
    ]


@pytest.mark.parametrize(
    ("charter", "finding"),
    [
        ("Knows the fleet.", "says nothing of what it may import"),
        ("Knows the fleet. Imports dispatch.", "says it imports ['dispatch']"),
    ],
)
def test_a_room_that_does_not_say_what_it_imports_is_found(
    tmp_path: Path, charter: str, finding: str
) -> None:
    root = copy(tmp_path, "services/router")
    (root / "services/router/fleet/__init__.py").write_text(f'"""{charter}"""\n')

    found = rooms.sentences(root, {"services.router": HOUSES["services.router"]})

    assert any(finding in complaint for complaint in found)


def test_a_new_package_needs_a_row_in_the_table(tmp_path: Path) -> None:
    root = copy(tmp_path, "services/router")
    (root / "services/router/attic").mkdir()
    (root / "services/router/attic/__init__.py").write_text('"""Holds what is old."""\n')

    found = rooms.unknown(root, {"services.router": HOUSES["services.router"]})

    assert found == ["services.router.attic: is no room of the table"]
