"""However a group is cut, each member keeps its data and is answered once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching.queue import RequestQueue
from services.runtime.requests import members
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.request import NEVER, Request
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from tests.fakes.grouped_work import Call, Form, group_of
from tests.fakes.work import Inbox

Value = tuple[str, tuple[float, ...]]


def values(requests: Sequence[Request]) -> list[Value]:
    """Returns the items and members in their order, by name, each with its rows."""
    found: list[Value] = []
    for request in requests:
        names = [f"{request.id}/{member}" for member in request.members] or [request.id]
        rows = np.frombuffer(request.parts[0], dtype="<f8")
        assert len(rows) == request.rows
        parts = rows.reshape(len(names), -1).tolist()
        found += [(name, tuple(part)) for name, part in zip(names, parts, strict=True)]
    return found


@st.composite
def requests_made(draw: Any) -> tuple[Inbox, list[Request], list[Request]]:
    """Returns items and groups, and the same as items alone."""
    inbox = Inbox(policy=BatchPolicy(priority_levels=2))
    mixed: list[Request] = []
    single: list[Request] = []
    number = 0
    for index in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 3))
        many = draw(st.integers(1, 6))
        fields = {"priority": draw(st.integers(1, 2)), "received": draw(st.integers(0, 3)) / 1000}
        rows = [[float(number + member)] * size for member in range(many)]
        number += many
        names = [f"{index}/{member}" for member in range(many)]
        items = [
            inbox.rows(*row, name=name, **fields) for row, name in zip(rows, names, strict=True)
        ]
        single += items
        if many > 1:
            mixed.append(inbox.group(*rows, name=str(index), **fields))
        else:
            mixed += items
    return inbox, mixed, single


@given(requests_made())
def test_halves_of_a_batch_are_those_of_its_members(
    made: tuple[Inbox, list[Request], list[Request]],
) -> None:
    _, mixed, single = made

    def leaves(requests: Sequence[Request]) -> list[list[Value]]:
        if members.count(requests) == 1:
            return [values(requests)]
        first, second = members.halves(requests)
        assert members.count(first) == members.count(requests) // 2
        return [values(requests), *leaves(first), *leaves(second)]

    assert leaves(mixed) == leaves(single)
    assert values(members.apart(mixed)) == values(single)
    assert all(len(request.members) <= 1 for request in members.apart(mixed))


@given(
    requests_made(),
    st.integers(1, 9),
    st.builds(
        BatchPolicy,
        preferred=st.sampled_from([(), (2,), (3, 6)]),
        max_delay=st.sampled_from([0.0, 0.002]),
        priority_levels=st.just(2),
    ),
    st.sets(st.integers(0, 20), max_size=5),
)
def test_calls_have_the_rows_that_single_items_would_have(
    made: tuple[Inbox, list[Request], list[Request]],
    limit: int,
    policy: BatchPolicy,
    gone: set[int],
) -> None:
    _, mixed, single = made
    answered = {request.id for index, request in enumerate(single) if index in gone}

    def calls(requests: Sequence[Request]) -> list[tuple[list[Value], float]]:
        waiting = RequestQueue(policy)
        for request in requests:
            waiting.add(request)
        for request in requests:
            if request.group is None:
                request.open = request.id not in answered
            else:
                names = [f"{request.id}/{member}" for member in request.members]
                for left in members.named(
                    request, [place for place, name in enumerate(names) if name in answered]
                ):
                    members.close(left)
        waiting.purge(0.0)
        found = []
        for now in (0.001, 0.003, 1.0):
            while (taken := waiting.take(now, limit))[0]:
                found.append((values(taken[0]), taken[1]))
            found.append(([], taken[1]))
        assert not waiting
        return found

    assert calls(mixed) == calls(single)


@given(st.integers(2, 9), st.lists(st.sets(st.integers(0, 8), min_size=1), max_size=6))
def test_each_member_is_closed_once(many: int, closings: list[set[int]]) -> None:
    request = Inbox().group(*[[float(number)] for number in range(many)])
    left = set(range(many))
    pieces = [*members.halves([request])[0], *members.halves([request])[1]]

    for closing in closings:
        found = members.named(request, closing)
        assert sorted(number for piece in found for number in piece.members) == sorted(
            left & closing
        )
        for piece in found:
            members.close(piece)
        left -= closing

    waiting = [(f"g/{number}", (float(number),)) for number in sorted(left)]
    assert values(members.still_open([request])) == waiting
    assert values(members.still_open(pieces)) == waiting


def test_members_are_late_each_at_its_own_time() -> None:
    request = Inbox().group([1], [2], [3], [4], received=10.0, timeouts_ms=[0, 3000, 1000, 2000])

    assert request.deadline == NEVER
    assert members.first_deadline(request) == 11.0
    assert members.late(request, 10.9) == ([], 11.0)
    (late,), nearest = members.late(request, 12.0)
    assert (list(late.members), nearest) == ([2, 3], 13.0)
    members.close(late)
    assert members.late(request, 12.0) == ([], 13.0)


def test_a_group_whose_members_all_have_a_deadline_waits_until_the_last() -> None:
    request = Inbox().group([1], [2], received=10.0, timeouts_ms=[3000, 1000])

    assert request.deadline == 13.0


@given(
    st.lists(st.builds(Call, st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1),
    st.sampled_from([Form(), Form(rows=2, other_rows=3, outputs=("a",), priority=2)]),
)
def test_a_group_taken_apart_says_what_its_items_said(calls: list[Call], form: Form) -> None:
    items = [call.item(form, "", number) for number, call in enumerate(calls)]
    group = members.open_group(group_of("g", items), 0.0)

    apart = members.items_apart(group)

    assert apart == items
    for index, item in enumerate(apart):
        plain = work_pb2.WorkItem(inputs=item.inputs, method=item.method, outputs=item.outputs)
        plain.priority = item.priority
        plain.context["x-principal"] = "principals/a"
        assert plain == columns.member(group.form, index, len(items))
