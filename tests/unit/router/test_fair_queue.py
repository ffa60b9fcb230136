"""The order in which waiting requests are sent."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.pending_requests import PendingRequest


class Desk:
    key = "k"

    def leave(self, request: PendingRequest) -> None: ...


def request(id: str, tenant: str = "a", priority: int = 1, cost: int = 1) -> PendingRequest:
    return PendingRequest(id, Desk(), None, 10.0, tenant, priority, cost, b"12345", 5)


def next_of(queue: FairQueue) -> PendingRequest:
    request = queue.pop()
    assert request is not None
    return request


def drain(queue: FairQueue) -> list[str]:
    ids = []
    while queue.count:
        ids.append(next_of(queue).id)
    return ids


def test_one_tenant_is_served_in_order() -> None:
    queue = FairQueue(Backlog())
    for number in range(5):
        queue.push(request(f"{number}"))

    assert drain(queue) == ["0", "1", "2", "3", "4"]


def test_a_request_larger_than_the_room_stays_the_next_one() -> None:
    queue = FairQueue(Backlog())
    queue.push(request("a"))
    queue.push(request("b"))

    assert queue.pop(4) is None
    assert queue.count == 2
    assert queue.pop(5) is not None
    assert drain(queue) == ["b"]


def test_a_higher_priority_goes_first_whoever_asks() -> None:
    queue = FairQueue(Backlog())
    for id, priority in [("low", 3), ("high", 1), ("middle", 2), ("high too", 1)]:
        queue.push(request(id, tenant=id, priority=priority))

    assert drain(queue) == ["high", "high too", "middle", "low"]


def test_a_backlog_of_one_tenant_does_not_stand_before_another() -> None:
    queue = FairQueue(Backlog())
    for number in range(10_000):
        queue.push(request(f"a{number}"))
    for _ in range(100):
        next_of(queue)

    queue.push(request("b", tenant="b"))

    assert next_of(queue).id == "b"


def test_what_an_expensive_request_takes_is_paid_back() -> None:
    queue = FairQueue(Backlog())
    for number in range(3):
        queue.push(request(f"big{number}", tenant="big", cost=10))
    for number in range(30):
        queue.push(request(f"small{number}", tenant="small"))

    order = drain(queue)

    assert [order.index(f"big{number}") for number in range(3)] == [0, 11, 22]


def test_who_comes_back_does_not_get_its_turn_again_before_the_others() -> None:
    queue = FairQueue(Backlog())
    queue.push(request("waits 0", tenant="waits"))
    queue.push(request("waits 1", tenant="waits"))
    queue.push(request("greedy 0", tenant="greedy", cost=5))
    assert [next_of(queue).id, next_of(queue).id] == ["waits 0", "greedy 0"]

    queue.push(request("greedy 1", tenant="greedy", cost=5))

    assert drain(queue) == ["waits 1", "greedy 1"]


def test_what_is_taken_out_is_not_served() -> None:
    queue = FairQueue(Backlog())
    gone, alone = request("gone"), request("alone", tenant="b")
    for each in (gone, alone, request("stays")):
        queue.push(each)

    queue.remove(gone)
    queue.remove(alone)

    assert queue.count == queue.cost == 1
    assert queue.bytes == 5
    assert queue.of_tenant("b") == 0
    assert drain(queue) == ["stays"]


def test_what_is_ahead_is_what_a_fair_order_sends_before() -> None:
    queue = FairQueue(Backlog())
    for number in range(100):
        queue.push(request(f"a{number}", priority=2))
    for number in range(7):
        queue.push(request(f"urgent{number}", priority=1))

    assert queue.ahead(2, "a", 1) == 107
    assert queue.ahead(2, "b", 1) == 7 + 1
    assert queue.ahead(2, "b", 5) == 7 + 5
    assert queue.ahead(1, "b", 1) == 1
    assert queue.ahead(3, "b", 1) == 107


def test_many_tenants_that_come_and_go_leave_nothing_behind() -> None:
    queue = FairQueue(Backlog())
    queue.push(request("stays", tenant="stays"))
    for number in range(10_000):
        queue.push(request(f"stays {number}", tenant="stays"))
        queue.push(request(f"{number}", tenant=f"tenant {number}"))
        next_of(queue)
        next_of(queue)

    level = queue._levels[1]
    assert len(level._finished) < 200
    assert len(level._turns) == len(level.flows) == 1


_REQUESTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 3), st.integers(1, 20), st.booleans()),
    max_size=60,
)


@given(requests=_REQUESTS)
def test_each_request_is_served_once_by_priority_and_in_the_order_of_its_tenant(
    requests: list[tuple[str, int, int, bool]],
) -> None:
    queue = FairQueue(Backlog())
    made = [
        request(f"{n}", tenant, priority, cost)
        for n, (tenant, priority, cost, _) in enumerate(requests)
    ]
    for each in made:
        queue.push(each)
    for each, (_, _, _, taken) in zip(made, requests, strict=True):
        if taken:
            queue.remove(each)
    left = [each for each, (_, _, _, taken) in zip(made, requests, strict=True) if not taken]
    assert (queue.count, queue.cost, queue.bytes) == (
        len(left),
        sum(each.cost for each in left),
        5 * len(left),
    )

    served = [made[int(id)] for id in drain(queue)]

    assert sorted(each.id for each in served) == sorted(each.id for each in left)
    assert [each.priority for each in served] == sorted(each.priority for each in served)
    for tenant in "abcd":
        for priority in (1, 2, 3):
            mine = [
                int(each.id)
                for each in served
                if (each.tenant, each.priority) == (tenant, priority)
            ]
            assert mine == sorted(mine)


@given(
    costs=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 20)), min_size=1, max_size=80)
)
def test_two_tenants_who_wait_are_served_alike_to_within_one_request_each(
    costs: list[tuple[str, int]],
) -> None:
    queue, waiting = FairQueue(Backlog()), Counter[str]()
    for number, (tenant, cost) in enumerate(costs):
        queue.push(request(f"{number}", tenant, cost=cost))
        waiting[tenant] += 1
    served: Counter[str] = Counter()

    while queue.count and all(waiting[tenant] for tenant in "ab"):
        each = next_of(queue)
        served[each.tenant] += each.cost
        waiting[each.tenant] -= 1
        assert abs(served["a"] - served["b"]) <= 2 * max(cost for _, cost in costs)
