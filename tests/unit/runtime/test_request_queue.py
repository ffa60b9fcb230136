"""What waits is taken by priority and age, as much of one layout as a call may have, and nothing is
lost or doubled.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching.queue import RequestQueue
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.request import Request
from tests.fakes.work import Inbox

INF = float("inf")


def queue(inbox: Inbox, *requests: Request) -> RequestQueue:
    waiting = RequestQueue(inbox.policy)
    for request in requests:
        waiting.add(request)
    return waiting


def rows(waiting: RequestQueue, now: float = 0.0, limit: int = 100) -> list[list[int]]:
    """The calls that are made of what waits, each as the rows of its requests."""
    found = []
    while (taken := waiting.take(now, limit)[0]) != []:
        found.append([request.rows for request in taken])
    return found


def of(inbox: Inbox, *counts: int, **fields: int) -> list[Request]:
    return [inbox.rows(*[0.0] * count, received=0.0, **fields) for count in counts]


def test_all_of_one_layout_make_one_call_whatever_stands_between_them() -> None:
    inbox = Inbox()
    wide = inbox.request(np.zeros((1, 7)), received=0.0)
    first, second = of(inbox, 1, 2)

    waiting = queue(inbox, first, wide, second)

    assert waiting.take(0.0, 100)[0] == [first, second]
    assert waiting.take(0.0, 100)[0] == [wide]
    assert not waiting and waiting.take(0.0, 100) == ([], INF)


def test_rows_are_bounded_but_a_large_request_goes_alone() -> None:
    inbox = Inbox()

    assert rows(queue(inbox, *of(inbox, 3, 9, 1, 1, 1)), limit=4) == [[3], [9], [1, 1, 1]]


def test_what_cannot_be_batched_goes_one_by_one() -> None:
    inbox = Inbox(policy=BatchPolicy(max_rows=1))

    assert rows(queue(inbox, *of(inbox, 1, 1, 1))) == [[1], [1], [1]]


def test_the_highest_priority_goes_first_and_takes_lower_ones_of_its_form_along() -> None:
    inbox = Inbox(policy=BatchPolicy(priority_levels=3, default_priority=2))
    low = inbox.rows(1, received=0.0, priority=3)
    usual = [inbox.request(np.zeros((1, 5)), received=0.0) for _ in range(2)]
    high = inbox.rows(2, received=0.0, priority=1)

    waiting = queue(inbox, low, *usual, high)

    assert waiting.take(0.0, 100)[0] == [high, low]
    assert waiting.take(0.0, 100)[0] == usual


def test_within_a_priority_the_oldest_form_goes_first() -> None:
    inbox = Inbox()
    a, b, c = (inbox.request(np.zeros((1, width)), received=0.0) for width in (1, 2, 3))

    waiting = queue(inbox, b, c, a)

    assert [waiting.take(0.0, 100)[0] for _ in range(3)] == [[b], [c], [a]]


def test_a_call_is_cut_to_the_largest_preferred_size_that_is_there() -> None:
    inbox = Inbox(policy=BatchPolicy(preferred=(4, 8)))

    assert [sum(call) for call in rows(queue(inbox, *of(inbox, *[1] * 15)))] == [8, 4, 3]


def test_preferred_sizes_do_not_hold_back_what_is_larger() -> None:
    inbox = Inbox(policy=BatchPolicy(preferred=(4,)))

    assert rows(queue(inbox, *of(inbox, 6, 3, 2))) == [[6], [3], [2]]


def test_a_lone_request_waits_no_longer_than_its_delay() -> None:
    inbox = Inbox(policy=BatchPolicy(max_delay=0.010))
    waiting = queue(inbox, *of(inbox, 1))

    assert waiting.take(0.004, 100) == ([], 0.010)
    assert len(waiting.take(0.010, 100)[0]) == 1


def test_a_preferred_batch_size_ends_the_wait() -> None:
    inbox = Inbox(policy=BatchPolicy(max_delay=0.010, preferred=(2, 4)))

    assert rows(queue(inbox, *of(inbox, 1, 1, 1))) == [
        [1, 1]
    ]  # the third begins to wait anew, for another


def test_a_full_call_does_not_wait() -> None:
    inbox = Inbox(policy=BatchPolicy(max_delay=0.010))

    assert rows(queue(inbox, *of(inbox, 2, 2, 1)), limit=4) == [[2, 2]]


def test_while_one_layout_waits_another_may_go() -> None:
    inbox = Inbox(policy=BatchPolicy(max_delay=0.010))
    young = inbox.rows(1, received=1.0)
    old = inbox.request(np.zeros((1, 2)), received=0.5)

    waiting = queue(inbox, young, old)

    assert waiting.take(1.0, 100)[0] == [old]
    assert waiting.take(1.0, 100) == ([], 1.010)


def test_what_was_answered_or_is_late_is_passed_over() -> None:
    inbox = Inbox()
    gone, late, good, also_gone = of(inbox, 1, 1, 1, 1)
    gone.open = also_gone.open = False
    late.deadline = 5.0

    waiting = queue(inbox, gone, late, good, also_gone)

    assert waiting.take(5.0, 100)[0] == [good]
    assert not waiting


def test_what_was_answered_is_forgotten_even_if_no_slot_is_ever_free() -> None:
    inbox = Inbox()
    requests = of(inbox, 1, 1)
    waiting = queue(inbox, *requests)
    requests[0].open = False

    waiting.purge(0.0)
    assert waiting
    requests[1].deadline = 1.0
    waiting.purge(1.0)

    assert not waiting


def test_two_loads_of_a_model_are_not_mixed() -> None:
    inbox = Inbox()
    first, second = of(inbox, 1, 1)
    second.work.model = object()  # type: ignore[assignment]

    assert rows(queue(inbox, first, second)) == [[1], [1]]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans()),
        max_size=30,
    ),
    st.integers(1, 8),
    st.lists(st.integers(1, 8), max_size=3),
)
def test_every_open_request_is_taken_once_in_calls_of_one_form(
    asked: list[tuple[int, int, int, bool]], limit: int, preferred: list[int]
) -> None:
    inbox = Inbox(policy=BatchPolicy(preferred=tuple(sorted(preferred)), priority_levels=3))
    requests = []
    for count, width, priority, still_open in asked:
        request = inbox.request(np.zeros((count, width)), received=0.0, priority=priority)
        request.open = still_open
        requests.append(request)
    waiting = queue(inbox, *requests)

    taken: list[Request] = []
    while (call := waiting.take(0.0, limit)[0]) != []:
        assert len({request.layout for request in call}) == 1
        assert len(call) == 1 or sum(request.rows for request in call) <= limit
        taken += call

    assert sorted(map(id, taken)) == sorted(id(request) for request in requests if request.open)
    assert not waiting
