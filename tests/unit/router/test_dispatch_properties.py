"""Whatever happens: every request ends exactly once, bounds hold, and nothing is sent out of order
or too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.router.queueing.admission import QueuePolicy
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import (
    BrokerDown,
    DeadlinePassed,
    Overloaded,
    ServiceError,
    Unroutable,
    to_work_error,
)
from tests.fakes.dispatch_rig import KEY, Rig
from tests.fakes.held_broker import turns

_SLOTS, _PER_SLOT, _MAX_QUEUED, _MAX_COST = 2, 3, 12, 4
_FAILURES = [Overloaded("full"), BrokerDown("away"), Unroutable("no queue"), ValueError("broken")]
_POLICY = QueuePolicy(max_queued=_MAX_QUEUED, levels=3, default_priority=2)


class Dispatching(RuleBasedStateMachine):
    """Callers, a broker, a runtime and a clock that do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig(slots=_SLOTS, window_per_slot=_PER_SLOT, max_queued_per_tenant=16)
        self.priorities: dict[str, int] = {}
        self.deadlines: dict[str, float] = {}
        # What each caller had heard when it went away.
        self.cancelled: dict[str, int] = {}
        self.cancelled_unsent: set[str] = set()
        self.unanswered: list[str] = []
        self.seen = 0

    @initialize()
    def listen(self) -> None:
        self.loop.run_until_complete(self.rig.listening())

    def run(self, act: Callable[[], object] = lambda: None) -> None:
        """Does something and lets everything run, then looks at what was sent."""

        async def acting() -> None:
            act()
            await turns()

        self.loop.run_until_complete(acting())
        rig = self.rig
        waiting = {
            id: self.priorities[id]
            for id in self.priorities
            if (request := rig.pending.get(id)) is not None and not request.sent_at
        }
        for envelope in rig.broker.envelopes[self.seen :]:
            order = [self.priorities[item.id] for item in envelope.items]
            assert order == sorted(order)
            assert not waiting or order[-1] <= min(waiting.values())
            for item in envelope.items:
                assert item.id not in self.unanswered
                assert 0 < item.timeout_ms / 1000 <= self.deadlines[item.id] - rig.clock.now + 0.001
                assert item.id not in self.cancelled_unsent
                self.unanswered.append(item.id)
        self.seen = len(rig.broker.envelopes)

    @rule(
        priorities=st.lists(st.integers(0, 4), min_size=1, max_size=12),
        tenant=st.sampled_from("ab"),
        seconds=st.floats(0.01, 20),
        cost=st.integers(1, _MAX_COST),
        size=st.sampled_from([0, 0, 0, 600_000]),
    )
    def submit(
        self, priorities: list[int], tenant: str, seconds: float, cost: int, size: int
    ) -> None:
        def act() -> None:
            for priority in priorities:
                try:
                    id = self.rig.submit(
                        seconds=seconds,
                        priority=priority,
                        size=size,
                        tenant=tenant,
                        policy=_POLICY,
                        cost=cost,
                    )
                except (Overloaded, BrokerDown):
                    continue
                self.priorities[id] = _POLICY.priority(priority)
                self.deadlines[id] = self.rig.clock.now + seconds
                assert self.rig.heard[id] == []

        self.run(act)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.priorities:
            id = data.draw(st.sampled_from(sorted(self.priorities)))
            if id not in [item.id for item in self.rig.broker.items]:
                self.cancelled_unsent.add(id)
            self.cancelled.setdefault(id, len(self.rig.heard[id]))
            self.run(lambda: self.rig.dispatcher.cancel(id))

    @rule(
        data=st.data(),
        more=st.booleans(),
        leads=st.booleans(),
        failed=st.sampled_from([None, DeadlinePassed("late")]),
    )
    def answer(
        self, data: st.DataObject, more: bool, leads: bool, failed: ServiceError | None
    ) -> None:
        if not self.unanswered:
            return
        ids = data.draw(
            st.lists(st.sampled_from(self.unanswered), min_size=1, max_size=4, unique=True)
        )
        fields: dict[str, Any] = (
            {"error": to_work_error(failed)} if failed else {"more": more, "leads": leads}
        )
        fields |= {"compute_ns": 5_000_000, "rows": 1, "batch_rows": len(ids)}
        if failed or not more:
            self.unanswered = [id for id in self.unanswered if id not in ids]
        self.run(
            lambda: self.rig.broker.answer([work_pb2.WorkReply(id=id, **fields) for id in ids])
        )

    @rule(count=st.integers(1, 6))
    def answer_the_oldest(self, count: int) -> None:
        ids, self.unanswered = self.unanswered[:count], self.unanswered[count:]
        reply = {"leads": True, "compute_ns": 5_000_000, "rows": 1, "batch_rows": 1}
        self.run(lambda: self.rig.broker.answer([work_pb2.WorkReply(id=id, **reply) for id in ids]))

    @rule(seconds=st.floats(0.01, 1), stalled=st.booleans())
    def pass_time(self, seconds: float, stalled: bool = False) -> None:
        self.rig.clock.now += seconds
        if not stalled:
            self.run(self.rig.dispatcher.expire)

    @rule(confirms=st.booleans())
    def confirm(self, confirms: bool) -> None:
        if confirms:
            self.run(self.rig.broker.confirm)
        self.rig.broker.confirms = confirms

    @rule(trouble=st.sampled_from([*_FAILURES, "lost", "away", "nobody", "", "", ""]))
    def trouble(self, trouble: Exception | str) -> None:
        broker = self.rig.broker
        broker.problem = "it does not answer" if trouble == "away" else ""
        if isinstance(trouble, Exception):
            broker.errors = [trouble]
        elif trouble in ("lost", "away"):
            self.run(broker.lose)
        elif trouble == "nobody":
            self.run(lambda: self.rig.pending.fail_key(KEY, BrokerDown("nobody")))
        else:
            self.run(self.rig.dispatcher.expire)

    @invariant()
    def nobody_hears_anything_after_the_end(self) -> None:
        for id, heard in self.rig.heard.items():
            ends = [isinstance(outcome, ServiceError) or not outcome.more for outcome in heard]
            assert not any(ends[:-1])
            request = self.rig.pending.get(id)
            if id in self.cancelled:
                assert len(heard) == self.cancelled[id]
            else:
                assert any(ends) != (request is not None and request.on_reply is not None)

    @invariant()
    def bounds_hold(self) -> None:
        waiting = underway = 0
        for id in self.priorities:
            request = self.rig.pending.get(id)
            if request is not None:
                waiting += not request.sent_at
                underway += request.cost if request.underway else 0
        window = _SLOTS * _PER_SLOT
        assert underway < window + _MAX_COST
        assert waiting <= _MAX_QUEUED + window

    def teardown(self) -> None:
        """At the end nothing is left, and every caller that stayed was told."""
        self.rig.broker.errors = []
        self.run(self.rig.broker.confirm)
        self.rig.broker.problem = ""
        for _ in range(60):
            self.pass_time(0.5)
        self.loop.close()
        assert len(self.rig.pending) == 0
        for id, heard in self.rig.heard.items():
            ended = bool(heard) and (isinstance(heard[-1], ServiceError) or not heard[-1].more)
            assert ended or id in self.cancelled
        backlog = self.rig.dispatcher._backlog
        assert (backlog.bytes, backlog.tenants) == (0, {})
        for queue in self.rig.dispatcher._queues.values():
            assert queue.idle


Dispatching.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestDispatching = Dispatching.TestCase
