"""What a model's owner asks of its queue."""

from __future__ import annotations

import pytest

from services.router.queueing.admission import QueuePolicy
from stellwerk.type.v1 import serving_pb2


@pytest.mark.parametrize(
    ("levels", "default", "expected"),
    [(0, 0, 1), (0, 3, 1), (1, 0, 1), (3, 0, 2), (4, 0, 2), (5, 1, 1), (5, 5, 5), (5, 6, 3)],
)
def test_the_default_priority_is_the_middle_one_unless_another_exists(
    levels: int, default: int, expected: int
) -> None:
    policy = QueuePolicy.of(
        serving_pb2.ServingPolicy(priority_levels=levels, default_priority=default)
    )

    assert policy.priority(0) == expected


def test_a_priority_that_does_not_exist_is_the_default() -> None:
    policy = QueuePolicy.of(serving_pb2.ServingPolicy(priority_levels=3))

    assert [policy.priority(asked) for asked in (1, 2, 3, 4, 2**32 - 1)] == [1, 2, 3, 2, 2]


def test_bounds_and_timeout_are_the_owners() -> None:
    policy = QueuePolicy.of(serving_pb2.ServingPolicy(max_queue_size=7, default_timeout_ms=1500))

    assert (policy.max_queued, policy.default_timeout) == (7, 1.5)
    assert QueuePolicy.of(serving_pb2.ServingPolicy()) == QueuePolicy()
