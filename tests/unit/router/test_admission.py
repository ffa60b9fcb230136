"""Who may wait, and what the others are told."""

from __future__ import annotations

import itertools

import pytest

from services.router.queueing import admission
from services.router.queueing.admission import AdmissionLimits, QueueLoad, QueuePolicy
from services.router.queueing.fair_queue import Backlog, FairQueue
from services.router.queueing.pending_requests import PendingRequest
from stellwerk.wire.errors import Overloaded


class Desk:
    key = "k"

    def leave(self, request: PendingRequest) -> None: ...


class Scene:
    """A queue with a window of ten that are under way."""

    def __init__(self, rate: float = 0.0, **limits: int) -> None:
        self.backlog, self.limits = Backlog(), AdmissionLimits(**limits)
        self.queue = FairQueue(self.backlog)
        self.rate = rate
        self.underway = 10
        self.window = 10
        self._numbers = itertools.count()

    def fill(self, count: int, tenant: str = "a", priority: int = 1) -> Scene:
        for _ in range(count):
            self.queue.push(self._request(tenant, priority, 1, b"body"))
        return self

    def _request(self, tenant: str, priority: int, cost: int, body: bytes) -> PendingRequest:
        id = f"{next(self._numbers)}"
        return PendingRequest(id, Desk(), None, 9.0, tenant, priority, cost, body, len(body))

    def ask(
        self,
        seconds: float = 2.0,
        *,
        tenant: str = "b",
        priority: int = 1,
        cost: int = 1,
        policy: QueuePolicy = QueuePolicy(),  # noqa: B008 it is frozen
    ) -> Overloaded | None:
        """The refusal, if it is one."""
        load = QueueLoad(
            self.queue, self.backlog, self.underway, self.window, rate=self.rate, fastest=0.0
        )
        request = self._request(tenant, priority, cost, b"")
        try:
            admission.check(load, self.limits, policy, request, request.cost, seconds)
        except Overloaded as exc:
            return exc
        return None


def detail(refusal: Overloaded | None) -> str:
    assert refusal is not None
    return refusal.metadata["reason_detail"]


def test_what_is_not_known_refuses_nobody() -> None:
    assert Scene().fill(500).ask(0.001) is None


def test_what_can_be_sent_at_once_is_taken_whatever_is_known() -> None:
    scene = Scene(rate=1.0)
    scene.underway = 9

    assert scene.ask(0.001) is None


def test_what_cannot_be_answered_in_time_is_refused_with_the_time_it_takes_until_it_could() -> None:
    scene = Scene(rate=100.0).fill(200, "b")

    assert scene.ask(3.0) is None
    refusal = scene.ask(2.0)

    assert detail(refusal) == "deadline_unreachable"
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(510, abs=20)
    assert refusal.message.startswith("an answer would take about 2.1")


def test_a_tenants_chances_do_not_fall_with_anothers_backlog() -> None:
    scene = Scene(rate=100.0).fill(1000, "a")

    assert detail(scene.ask(2.0, tenant="a")) == "deadline_unreachable"
    assert scene.ask(0.5, tenant="b") is None


def test_only_what_goes_before_counts() -> None:
    scene = Scene(rate=100.0).fill(1000, "b", priority=2)

    assert scene.ask(0.5, priority=1) is None
    assert detail(scene.ask(0.5, priority=2)) == "deadline_unreachable"
    assert detail(scene.ask(0.5, priority=3)) == "deadline_unreachable"


def test_an_expensive_request_takes_longer() -> None:
    scene = Scene(rate=100.0)

    assert scene.ask(1.0, cost=20) is None
    assert detail(scene.ask(1.0, cost=200)) == "deadline_unreachable"


def test_a_full_queue_takes_no_more() -> None:
    scene = Scene(rate=100.0, max_queued_per_model=50)

    assert scene.fill(49).ask(60.0) is None
    refusal = scene.fill(1, "c").ask(60.0)

    assert detail(refusal) == "queue_full"
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(500, abs=20)


def test_an_owner_can_lower_the_bound_and_not_raise_it() -> None:
    scene = Scene(max_queued_per_model=50).fill(20)

    assert detail(scene.ask(policy=QueuePolicy(max_queued=20))) == "queue_full"
    assert scene.ask(policy=QueuePolicy(max_queued=21)) is None
    assert detail(scene.fill(40, "c").ask(policy=QueuePolicy(max_queued=1000))) == "queue_full"


def test_a_tenant_has_its_share_over_all_models() -> None:
    scene = Scene(max_queued_per_tenant=30)
    scene.backlog.tenants["a"] = 30

    assert detail(scene.ask(tenant="a")) == "tenant_share"
    assert scene.ask(tenant="b") is None


def test_two_greedy_tenants_leave_room_for_a_third() -> None:
    scene = Scene(max_queued_per_model=100, max_queued_per_tenant=1000)
    for _ in range(200):
        for tenant in ("a", "c"):
            if scene.ask(60.0, tenant=tenant) is None:
                scene.fill(1, tenant)

    assert scene.queue.count < 100
    assert scene.ask(60.0, tenant="b") is None
    assert abs(scene.queue.of_tenant("a") - scene.queue.of_tenant("c")) <= 1


def test_one_tenant_alone_can_fill_a_small_queue() -> None:
    scene = Scene(max_queued_per_model=8)

    assert scene.fill(7, "a").ask(60.0, tenant="a") is None


def test_what_the_window_has_room_for_is_nobodys_share() -> None:
    scene = Scene()
    scene.window = 100
    scene.fill(91)
    policy = QueuePolicy(max_queued=4)

    for _ in range(3):
        assert scene.ask(tenant="a", policy=policy) is None
        scene.fill(1)
    scene.fill(1)

    assert detail(scene.ask(tenant="a", policy=policy)) == admission.QUEUE_FULL


def test_what_waits_is_bounded_in_bytes() -> None:
    scene = Scene(max_queued_bytes=40).fill(10)

    assert detail(scene.ask()) == "queue_full"


@pytest.mark.parametrize(("rate", "seconds"), [(10_000.0, 0.001), (1.0, 0.001)])
def test_the_time_to_come_again_is_neither_at_once_nor_never(rate: float, seconds: float) -> None:
    refusal = Scene(rate=rate).fill(3000, "b").ask(seconds)

    assert refusal is not None
    assert 50 <= refusal.retry_after <= 30_000
