"""What an owner says of a model's serving, in the runtime's words; and how much it takes from a
queue at a time.
"""

from __future__ import annotations

import pytest

from services.runtime.formats.port import Signature
from services.runtime.requests.batch_policy import (
    BatchPolicy,
    batch_policy,
    prefetch_count,
    row_bytes,
)
from stellwerk.type.v1 import serving_pb2
from tests.fakes import models
from tests.fakes.work import Inbox

SMALL = Signature((models.spec("x", "FP64", -1, 4),))
IMAGE = Signature((models.spec("x", "FP32", -1, 3, 1024, 1024),))


def test_who_says_nothing_gets_the_operators_bound_and_no_waiting() -> None:
    assert batch_policy(serving_pb2.ServingPolicy(), 256) == BatchPolicy(max_rows=256)


def test_an_owners_words_are_taken_over() -> None:
    serving = serving_pb2.ServingPolicy(
        max_batch_size=16,
        preferred_batch_sizes=[8, 4, 0, 32, 8],
        max_queue_delay_us=1500,
        priority_levels=5,
        latency_objective_ms=20,
    )

    assert batch_policy(serving, 256) == BatchPolicy(16, (4, 8), 0.0015, 5, 3, 0.02)


@pytest.mark.parametrize(
    ("levels", "default", "asked", "expected"),
    [
        (0, 0, 0, 1),
        (0, 0, 7, 1),
        (4, 0, 0, 2),
        (1, 0, 0, 1),
        (4, 3, 0, 3),
        (4, 9, 0, 2),
        (4, 3, 4, 4),
        (4, 3, 5, 3),
    ],
)
def test_priorities(levels: int, default: int, asked: int, expected: int) -> None:
    serving = serving_pb2.ServingPolicy(priority_levels=levels, default_priority=default)

    inbox = Inbox(policy=batch_policy(serving, 256))

    assert inbox.rows(1.0, priority=asked).priority == expected


def test_a_batch_is_the_largest_preferred_size_or_all_there_is() -> None:
    policy = BatchPolicy(preferred=(4, 8))

    assert [policy.batch_rows(rows) for rows in (3, 4, 7, 8, 100)] == [3, 4, 4, 8, 8]
    assert BatchPolicy().batch_rows(7) == 7


@pytest.mark.parametrize(
    ("slots", "max_rows", "methods", "expected"),
    [
        (2, 256, [(True, SMALL)], 64),  # a call's worth for each slot, even of single rows
        (2, 8, [(True, SMALL)], 16),
        (2, 256, [(False, SMALL)], 4),  # one that runs and one that is here when it ends
        (2, 1, [(True, SMALL)], 4),
        (64, 256, [(True, SMALL)], 256),
        (200, 256, [(True, SMALL)], 400),
        (2, 256, [(True, SMALL), (False, IMAGE)], 10),  # bounded in bytes
        (2, 256, [], 4),
    ],
)
def test_deliveries_in_hand(
    slots: int, max_rows: int, methods: list[tuple[bool, Signature]], expected: int
) -> None:
    assert prefetch_count(slots, max_rows, methods) == expected


def test_open_dimensions_count_as_one() -> None:
    assert (
        row_bytes(Signature((models.spec("x", "FP32", -1, -1, 3), models.spec("z", "BYTES", -1))))
        == 32
    )
