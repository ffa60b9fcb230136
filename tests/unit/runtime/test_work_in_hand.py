"""Deadlines of messages in hand are known when they pass, and the next one in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.intake.in_hand import WorkInHand
from services.runtime.requests.members import close
from services.runtime.requests.request import NEVER, WorkMessage
from tests.fakes.work import Inbox


def message(inbox: Inbox, *deadlines: float) -> WorkMessage:
    work = inbox.message(0.0)
    for deadline in deadlines:
        request = inbox.rows(1)
        request.work, request.deadline = work, deadline
        work.requests.append(request)
    return work


def test_a_nearer_deadline_is_told() -> None:
    inbox, deadlines = Inbox(), WorkInHand()

    assert deadlines.add(message(inbox, 7.0, 5.0))
    assert not deadlines.add(message(inbox, 6.0))
    assert not deadlines.add(message(inbox, NEVER))
    assert deadlines.add(message(inbox, 4.0))
    assert deadlines.next == 4.0


def test_what_is_answered_is_not_late() -> None:
    deadlines, work = WorkInHand(), message(Inbox(), 5.0, 6.0)
    deadlines.add(work)
    work.requests[0].open = False

    assert deadlines.expired(5.5) == []
    assert deadlines.next == 6.0
    deadlines.remove(work)
    assert deadlines.expired(9.0) == [] and deadlines.next == NEVER


def test_members_of_a_group_are_late_one_after_the_other() -> None:
    inbox, deadlines = Inbox(), WorkInHand()
    work = inbox.message(0.0)
    group = inbox.group([1], [2], [3], received=0.0, timeouts_ms=[5000, 0, 7000])
    work.requests.append(group)

    assert deadlines.add(work) and deadlines.next == 5.0
    (first,) = deadlines.expired(5.0)
    assert (list(first.members), deadlines.next) == ([0], 7.0)
    close(first)
    (last,) = deadlines.expired(8.0)
    assert (list(last.members), deadlines.next) == ([2], NEVER)


def test_members_are_found_by_their_group_and_index() -> None:
    inbox, deadlines = Inbox(), WorkInHand()
    work = message(inbox, 5.0)
    work.requests.append(inbox.group([1], [2], [3], name="g"))
    deadlines.add(work)

    (found,) = deadlines.find((), {"g": {0, 2, 9}, "r": {0}})
    assert list(found.members) == [0, 2]
    close(found)
    assert deadlines.find((), {"g": {0, 2}}) == []
    assert deadlines.find({"r"}, {}) == work.requests[:1]


times = st.integers(1, 50).map(float)


@given(
    st.lists(st.lists(times, min_size=1, max_size=4), max_size=10),
    st.lists(times, max_size=10).map(sorted),
)
def test_each_request_is_late_once_and_never_early(
    asked: list[list[float]], moments: list[float]
) -> None:
    inbox, deadlines = Inbox(), WorkInHand()
    works = [message(inbox, *group) for group in asked]
    for work in works:
        deadlines.add(work)
    everything = [request for work in works for request in work.requests]

    for now in moments:
        due = {id(request) for request in everything if request.open and request.deadline <= now}
        assert (
            deadlines.next == min([r.deadline for r in everything if r.open], default=NEVER)
            or not due
        )
        late = deadlines.expired(now)
        assert {id(request) for request in late} == due
        for request in late:
            request.open = False
        assert deadlines.next == min([r.deadline for r in everything if r.open], default=NEVER)
