"""Anatomy, names, docstrings, settings and sizes, in the repository and planted in a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import anatomy, sizes
from tests.architecture.checks.tree import SERVICES
from tests.architecture.planting import ROOT, copy, expect_none, new_findings

CHECKS = [
    anatomy.parts,
    anatomy.charters,
    anatomy.entries,
    anatomy.settings,
    anatomy.servicers,
    anatomy.secrets,
    anatomy.names,
    anatomy.namespaces,
    anatomy.docstrings,
    sizes.files,
    sizes.functions,
    sizes.composition_roots,
]
LONG_FUNCTION = "def f() -> int:\n" + "    x = 1\n" * 40 + "    return x"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_its_anatomy(check) -> None:
    expect_none(check(ROOT))


@pytest.mark.parametrize(
    ("check", "path", "text", "finding"),
    [
        (anatomy.charters, "services/router/__init__.py", "VERSION = 1", "charter"),
        (anatomy.entries, "services/router/__main__.py", "x = 1\n" * 8, "statements"),
        (
            anatomy.settings,
            "services/router/config.py",
            "class Other:\n    pass",
            "not the one settings class",
        ),
        (
            anatomy.servicers,
            "services/router/servicer.py",
            "try:\n    pass\nfinally:\n    pass",
            "has no try",
        ),
        (
            anatomy.servicers,
            "services/router/servicer.py",
            "async def f(c):\n    await c.abort(1, '')",
            "abort",
        ),
        (
            anatomy.secrets,
            "services/router/config.py",
            "class C:\n    signing_key: str = 'swordfish'",
            "signing_key",
        ),
        (
            anatomy.secrets,
            "services/router/config.py",
            "class C:\n    password: S = SecretStr('x')",
            "password",
        ),
        (
            anatomy.secrets,
            "services/router/config.py",
            "class C:\n    token: S = Field(default='x')",
            "token",
        ),
        (anatomy.names, "services/router/utils.py", "X = 1", '"utils" says nothing'),
        (anatomy.names, "sdk/stellwerk/client/common/nouns.py", "X = 1", '"common" says nothing'),
        (anatomy.namespaces, "sdk/stellwerk/__init__.py", "", "must not exist"),
        (anatomy.namespaces, "generated/stellwerk/__init__.py", "", "must not exist"),
        (sizes.files, "services/router/long.py", "x = 1\n" * 300, "at most 300"),
        (sizes.functions, "services/router/new.py", LONG_FUNCTION, "f has 41 lines, at most 40"),
        (sizes.composition_roots, "services/router/main.py", "x = 1\n" * 120, "at most 120"),
    ],
)
def test_a_planted_violation_is_found(
    tmp_path: Path, check, path: str, text: str, finding: str
) -> None:
    root = copy(tmp_path, path)

    found = new_findings(check, root, path, text)

    assert len(found) == 1
    assert path in found[0]
    assert finding in found[0]


def test_a_module_without_docstring_is_found(tmp_path: Path) -> None:
    (tmp_path / "services/router").mkdir(parents=True)
    (tmp_path / "services/router/new.py").write_text("X = 1\n")

    assert anatomy.docstrings(tmp_path) == [
        "services/router/new.py:1: has no docstring that says what it is for"
    ]


@pytest.mark.parametrize("part", anatomy.PARTS)
def test_a_service_that_lacks_a_part_is_found(tmp_path: Path, part: str) -> None:
    for service in SERVICES:
        for name in anatomy.PARTS:
            (tmp_path / "services" / service).mkdir(parents=True, exist_ok=True)
            (tmp_path / "services" / service / name).touch()
    (tmp_path / "services/router" / part).unlink()

    assert anatomy.parts(tmp_path) == [f"services/router/{part}: missing"]


def test_an_exception_lapses_when_the_file_is_short_again(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services/a.py").write_text("x = 1\n" * 310)
    (tmp_path / "services/b.py").write_text("x = 1\n" * 10)
    (tmp_path / "services/c.py").write_text("x = 1\n" * 351)

    found = sizes.files(tmp_path, {f"services/{name}.py": "a reason" for name in "abc"})

    assert [line.split(": ")[1] for line in found] == [
        "needs no exception from the file length any more",
        "351 lines, at most 350",
    ]


def test_an_exception_for_a_function_lapses_when_it_is_short_again(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services/a.py").write_text(LONG_FUNCTION)

    assert sizes.functions(tmp_path, {"services/a.py::f": "a reason"}) == []
    assert sizes.functions(
        tmp_path, {"services/a.py::f": "a reason", "services/a.py::g": "another"}
    ) == ["services/a.py::g: needs no exception from the function length"]


def test_signature_and_docstring_do_not_count_as_length_of_a_function(tmp_path: Path) -> None:
    signature = "def f(\n" + "    a: int,\n" * 20 + ") -> int:\n"
    documented = (
        signature + '    """Says:\n' + "    more.\n" * 30 + '    """\n' + "    x = 1\n" * 40
    )
    (tmp_path / "services").mkdir()

    assert new_findings(sizes.functions, tmp_path, "services/a.py", documented) == []
