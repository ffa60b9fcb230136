"""Members of a group wait, are refused and are taken in turn as requests by themselves would be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.admission import AdmissionLimits, QueuePolicy
from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.members import GroupWork, PendingGroup
from services.router.queueing.outbound_queue import OutboundQueue
from services.router.queueing.pending_requests import PendingRequest
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import Overloaded

KEY = "default/iris/1/any"
NOW = 1000.0
_SIZE = 7
_COUNTER = itertools.count()


def group_of(
    queue: OutboundQueue, deadlines: list[float], tenant: str = "a", priority: int = 1
) -> PendingGroup:
    """A group with a member for each deadline."""
    form = work_pb2.WorkItem(priority=priority)
    work = GroupWork(form, deadlines, [], [], lambda members, outcome: None, member_bytes=_SIZE)
    return PendingGroup(f"g{next(_COUNTER)}", queue, work, list(range(len(deadlines))), tenant)


def request_of(
    queue: OutboundQueue, deadline: float, tenant: str = "a", priority: int = 1
) -> PendingRequest:
    """A request by itself, as each member of such a group would be."""
    id = f"r{next(_COUNTER)}"
    return PendingRequest(id, queue, None, deadline, tenant, priority, 1, b"1234567", _SIZE)


def outbound(window: int = 4, **limits: int) -> OutboundQueue:
    return OutboundQueue(
        KEY, lambda key: 1, AdmissionLimits(window_per_slot=window, **limits), Backlog()
    )


def counts(queue: FairQueue) -> object:
    """What is counted of a queue."""
    return (
        (queue.count, queue.cost, queue.bytes),
        dict(queue._backlog.tenants),
        [(queue.of_tenant(tenant), queue.ahead(1, tenant, 1)) for tenant in "abc"],
    )


_PUSHES = st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.integers(1, 9))
_TAKES = st.integers(1, 12)
_DROPS = st.tuples(st.integers(0, 99), st.integers(0, 99))


@given(st.lists(_PUSHES | _TAKES | _DROPS, max_size=40))
def test_members_are_taken_in_the_order_of_requests_by_themselves(
    steps: list[tuple[str, int, int] | int | tuple[int, int]],
) -> None:
    grouped, alone = FairQueue(Backlog()), FairQueue(Backlog())
    groups: list[PendingGroup] = []
    # The requests that stand for the members of each group.
    twins: dict[str, list[PendingRequest]] = {}
    desk = outbound()

    def taken(count: int) -> tuple[list[str], list[str]]:
        """The next ones of both queues, at least `count`, as the ids of requests."""
        found: list[str] = []
        while grouped.count and len(found) < count:
            group = grouped.head()
            assert isinstance(group, PendingGroup)
            assert grouped.pop() is None
            members = grouped.take(group, count - len(found))
            found += [twins[group.id][index].id for index in members]
        popped = [alone.pop() for _ in found]
        return found, [request.id for request in popped if request is not None]

    for step in [*steps, 10_000]:
        if isinstance(step, int):
            found, expected = taken(step)
            assert found == expected
        elif len(step) == 3:
            tenant, priority, count = step
            group = group_of(desk, [NOW] * count, tenant, priority)
            groups.append(group)
            requests = [request_of(desk, NOW, tenant, priority) for _ in range(count)]
            twins[group.id] = requests
            grouped.push(group)
            for request in requests:
                alone.push(request)
        elif groups:
            group = groups[step[0] % len(groups)]
            if group.members:
                index = group.members[step[1] % len(group.members)]
                grouped.drop(group, [index])
                alone.remove(twins[group.id][index])
        assert counts(grouped) == counts(alone)
        assert grouped.members == grouped.count
    assert (grouped.count, grouped.bytes, grouped._backlog.bytes) == (0, 0, 0)


@given(
    waiting=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2)), max_size=30),
    seconds=st.lists(st.sampled_from([0.2, 1.0, 1.5, 2.0, 5.0]), min_size=1, max_size=40),
    rate=st.sampled_from([0.0, 10.0, 40.0]),
    underway=st.integers(0, 6),
    priority=st.integers(1, 2),
    limits=st.fixed_dictionaries(
        {
            "max_queued_per_model": st.sampled_from([10, 30, 100]),
            "max_queued_per_tenant": st.sampled_from([8, 20, 100]),
            "max_queued_bytes": st.sampled_from([100, 1000]),
        }
    ),
    policy=st.builds(QueuePolicy, max_queued=st.sampled_from([0, 12])),
)
def test_members_are_refused_as_requests_that_come_one_after_the_other(
    waiting: list[tuple[str, int]],
    seconds: list[float],
    rate: float,
    underway: int,
    priority: int,
    limits: dict[str, int],
    policy: QueuePolicy,
) -> None:
    grouped, alone = outbound(**limits), outbound(**limits)
    for queue in (grouped, alone):
        queue.underway = underway
        queue.window.rate = rate
        for tenant, level in waiting:
            queue.waiting.push(request_of(queue, NOW, tenant, level))
    deadlines = [NOW + each for each in seconds]
    group = group_of(grouped, deadlines, "a", priority)

    refused = {
        index: (error.message, error.retry_after, error.metadata)
        for indexes, error in grouped.admit(policy, group, NOW)
        for index in indexes
    }

    expected = {}
    for index, deadline in enumerate(deadlines):
        request = request_of(alone, deadline, "a", priority)
        try:
            alone.check(policy, request, deadline - NOW)
        except Overloaded as exc:
            expected[index] = (exc.message, exc.retry_after, exc.metadata)
        else:
            alone.waiting.push(request)
    assert refused == expected
    assert sorted([*refused, *group.members]) == list(range(len(deadlines)))
    assert grouped._saturated == alone._saturated
    assert group.cost == len(group.members)


@given(
    deadlines=st.lists(st.floats(NOW - 1, NOW + 3), min_size=1, max_size=40),
    tenants=st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
    rate=st.sampled_from([0.0, 5.0, 20.0]),
    underway=st.integers(0, 8),
    window=st.integers(1, 40),
    bytes_left=st.booleans(),
)
def test_an_envelope_takes_the_members_that_it_would_take_as_requests(
    deadlines: list[float],
    tenants: list[str],
    rate: float,
    underway: int,
    window: int,
    bytes_left: bool,
) -> None:
    limits = {"items_per_envelope": 16, "members_per_envelope": 16}
    grouped, alone = outbound(window, **limits), outbound(window, **limits)
    for queue in (grouped, alone):
        queue.underway = underway
        queue.window.rate = rate
        queue.window.size = window
    size = _SIZE if bytes_left else 100_000
    twins: dict[PendingGroup, list[PendingRequest]] = {}
    for tenant in tenants:
        group = group_of(grouped, list(deadlines), tenant)
        group.work.member_bytes = size
        twins[group] = [request_of(alone, deadline, tenant) for deadline in deadlines]
        grouped.waiting.push(group)
        for request in twins[group]:
            request.size = size
            alone.waiting.push(request)

    while alone.due:
        cut, expected = grouped.cut(NOW), alone.cut(NOW)
        going = [twins[group][index] for group, taken in cut.members.items() for index in taken]
        late = [twins[group][index] for group, index in cut.late_members]
        assert sorted(one.id for one in going) == sorted(one.id for one in expected.requests)
        assert [one.id for one in late] == [one.id for one in expected.late]
        assert (cut.count, cut.size) == (expected.count, expected.size)
        assert grouped.underway == alone.underway
        grouped.underway = alone.underway = underway
    assert not grouped.due


def test_members_go_in_turn_with_requests_that_do_not_all_fit() -> None:
    queue = outbound(200)
    queue.window.size = 200
    group = group_of(queue, [NOW + 9.0] * 60, "a")
    queue.waiting.push(group)
    for _ in range(40):
        queue.waiting.push(request_of(queue, NOW + 9.0, "b"))

    cut = queue.cut(NOW)

    assert len(cut.requests) == AdmissionLimits().items_per_envelope
    assert abs(len(cut.members[group]) - len(cut.requests)) <= 1
