"""Every waiting request ends exactly once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.pending_requests import Outcome, PendingRequest, PendingRequests
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import BrokerDown, NoRuntimeAvailable


class Desk:
    """Holds requests of one key and notes who leaves."""

    def __init__(self, key: str = "k") -> None:
        self.key = key
        self.left: list[str] = []

    def leave(self, request: PendingRequest) -> None:
        self.left.append(request.id)


class Waiting:
    """Adds requests to a table and notes what their callers hear."""

    def __init__(self) -> None:
        self.table = PendingRequests()
        self.heard: dict[str, list[Outcome]] = {}

    def add(self, id: str, desk: Desk | None = None, deadline: float = 10.0) -> PendingRequest:
        self.heard[id] = []
        request = PendingRequest(id, desk or Desk(), self.heard[id].append, deadline)
        self.table.add(request)
        return request


def test_an_answer_reaches_who_waits_for_it_and_ends_the_request() -> None:
    waiting, desk = Waiting(), Desk()
    waiting.add("1", desk)
    second = waiting.add("2", desk)
    reply = work_pb2.WorkReply(id="2")

    assert waiting.table.end(second, reply)

    assert waiting.heard == {"1": [], "2": [reply]}
    assert desk.left == ["2"]
    assert waiting.table.get("2") is None
    assert waiting.table.count("k") == len(waiting.table) == 1


def test_a_request_ends_once() -> None:
    waiting, desk = Waiting(), Desk()
    request = waiting.add("1", desk)

    assert waiting.table.end(request, BrokerDown("first"))
    assert not waiting.table.end(request, BrokerDown("second"))

    assert [str(outcome) for outcome in waiting.heard["1"]] == ["first"]
    assert desk.left == ["1"]


def test_a_caller_that_went_away_is_told_nothing() -> None:
    waiting = Waiting()

    waiting.table.end(waiting.add("1"), None)

    assert waiting.heard["1"] == []


def test_deadlines_are_due_in_their_order_and_leave_with_their_requests() -> None:
    waiting = Waiting()
    waiting.add("late", deadline=3.0)
    soon, answered = waiting.add("soon", deadline=1.0), waiting.add("answered", deadline=0.5)
    waiting.table.end(answered, None)

    assert waiting.table.due(0.99) == []
    assert waiting.table.due(1.5) == [soon]
    assert waiting.table.due(2.5) == []


def test_who_lingers_is_told_nothing_more_and_due_once_more() -> None:
    waiting = Waiting()
    request = waiting.add("1", deadline=1.0)
    waiting.table.due(2.0)

    waiting.table.linger(request, 3.0)

    assert waiting.table.get("1") is request
    assert waiting.table.due(3.5) == [request]
    waiting.table.end(request, BrokerDown("x"))
    assert waiting.heard["1"] == []


def test_failing_a_key_leaves_the_others() -> None:
    waiting = Waiting()
    waiting.add("1", Desk("ours"))
    waiting.add("2", Desk("theirs"))

    waiting.table.fail_key("ours", NoRuntimeAvailable("none"))

    assert len(waiting.heard["1"]) == 1
    assert waiting.heard["2"] == []


def test_only_what_was_sent_fails_with_the_broker() -> None:
    waiting = Waiting()
    waiting.add("waits")
    waiting.add("sent").sent_at = 1.0

    waiting.table.fail_sent(BrokerDown("lost"))

    assert len(waiting.heard["sent"]) == 1
    assert waiting.heard["waits"] == []


def test_a_caller_that_fails_to_take_its_answer_harms_nobody() -> None:
    waiting = Waiting()

    def broken(outcome: Outcome) -> None:
        raise ValueError("no room")

    request = PendingRequest("1", Desk(), broken, 10.0)
    waiting.table.add(request)

    assert waiting.table.end(request, BrokerDown("x"))
    assert len(waiting.table) == 0


_STEPS = st.tuples(
    st.sampled_from(["add", "end", "abandon", "due", "fail_key", "fail_sent"]), st.integers(0, 9)
)


@given(steps=st.lists(_STEPS, max_size=60))
def test_counts_match_the_requests_and_each_ends_once(steps: list[tuple[str, int]]) -> None:
    waiting, desks = Waiting(), [Desk(f"k{number}") for number in range(3)]
    table, open_, ended = waiting.table, {}, Counter[str]()
    for number, (step, place) in enumerate(steps):
        known = open_.get(place)
        if step == "add" and known is None:
            open_[place] = waiting.add(
                f"{number}", desks[place % 3], deadline=float(number + place)
            )
            open_[place].sent_at = float(place % 2)
            open_[place].underway = bool(place % 2)
        elif step in ("end", "abandon") and known is not None:
            table.end(known, BrokerDown("x") if step == "end" else None)
        elif step == "due":
            for request in table.due(float(number)):
                table.end(request, BrokerDown("due"))
        elif step == "fail_key":
            table.fail_key(f"k{place % 3}", BrokerDown("x"))
        elif step == "fail_sent":
            table.fail_sent(BrokerDown("x"))
        for where, request in list(open_.items()):
            if table.get(request.id) is None:
                ended[open_.pop(where).id] += 1

    assert len(table) == len(open_) == sum(table.count(desk.key) for desk in desks)
    assert sorted(ended) == sorted(id for desk in desks for id in desk.left)
    assert all(len(outcomes) <= 1 for outcomes in waiting.heard.values())
