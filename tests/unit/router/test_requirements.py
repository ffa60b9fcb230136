"""Requirements: met, or named in words."""

from __future__ import annotations

import pytest

from services.router.fleet.requirements import merge, unmet
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire.errors import InvalidInput

GIB = 1024**3


def runtime(**changes: object) -> router.Runtime:
    values: dict[str, object] = {
        "name": "runtimes/a",
        "cpu_cores": 4,
        "memory_bytes": 8 * GIB,
        "labels": {"zone": "west"},
        "frameworks": {"torch": "2.13.0+cpu", "scikit-learn": "1.9.1"},
        "accelerators": [router.Accelerator(kind="cuda", name="H200", memory_bytes=139 * GIB)],
    }
    return router.Runtime(**{**values, **changes})  # type: ignore[arg-type]


def test_nothing_required_is_met_by_anything() -> None:
    assert unmet(Requirements(), router.Runtime()) == []


@pytest.mark.parametrize(
    ("requires", "missing"),
    [
        (Requirements(accelerator_count=2), ["2 accelerators"]),
        (Requirements(accelerator_count=1, accelerator_kind="rocm"), ["1 rocm accelerator"]),
        (Requirements(accelerator_memory_bytes=200 * GIB), ["1 accelerator with 200.0 GiB"]),
        (Requirements(memory_bytes=16 * GIB), ["16.0 GiB of memory"]),
        (Requirements(cpu_cores=8), ["8 CPU cores"]),
        (Requirements(labels={"zone": "east"}), ["label zone=east"]),
        (Requirements(frameworks={"torch": ">=3"}), ["framework torch>=3"]),
        (Requirements(frameworks={"jax": ""}), ["framework jax"]),
    ],
)
def test_what_is_missing_is_named(requires: Requirements, missing: list[str]) -> None:
    assert unmet(requires, runtime()) == missing


def test_a_local_version_meets_its_release() -> None:
    assert unmet(Requirements(frameworks={"torch": ">=2.4,<3"}), runtime()) == []


def test_merge_takes_the_stricter_of_each() -> None:
    merged = merge(
        Requirements(memory_bytes=1, cpu_cores=4, labels={"a": "1"}, frameworks={"torch": ">=2"}),
        Requirements(memory_bytes=2, cpu_cores=1, labels={"b": "2"}, frameworks={"torch": "<3"}),
    )

    assert (merged.memory_bytes, merged.cpu_cores) == (2, 4)
    assert dict(merged.labels) == {"a": "1", "b": "2"}
    assert merged.frameworks["torch"] == "<3,>=2"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Requirements(labels={"zone": "west"}), Requirements(labels={"zone": "east"})),
        (Requirements(accelerator_kind="cuda"), Requirements(accelerator_kind="rocm")),
        (Requirements(), Requirements(frameworks={"torch": "two"})),
    ],
)
def test_contradictions_and_nonsense_are_refused(a: Requirements, b: Requirements) -> None:
    with pytest.raises(InvalidInput):
        merge(a, b)
