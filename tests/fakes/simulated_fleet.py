"""A runtime in simulated time behind a real dispatcher: callers that come when they like, slots
that join what waits into calls, and what became of every request. The same seed gives the same
story."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.router.queueing.pending_requests import Outcome
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import DeadlinePassed, ServiceError, to_work_error
from tests.fakes.dispatch_rig import KEY, Rig
from tests.fakes.held_broker import turns

_TRANSIT_SECONDS = 0.001
_TICK_SECONDS = 0.01


@dataclass(frozen=True)
class Model:
    """A call of n requests takes `fixed` + n · `each` seconds, a tenth more or less; at most
    `largest` are joined.
    """

    fixed: float
    each: float = 0.0
    largest: int = 1

    def seconds(self, requests: int) -> float:
        return self.fixed + self.each * requests

    def rate(self, slots: int) -> float:
        """Requests per second at most."""
        return slots * self.largest / self.seconds(self.largest)


@dataclass
class Tenant:
    """Somebody who sends requests at random moments, `rate` a second on average."""

    name: str
    rate: float
    deadline: float = 2.0
    priority: int = 0
    start: float = 0.0
    stop: float = float("inf")
    # When each came that was answered in time, counted from the beginning, and how long it waited
    # for the answer.
    answers: list[tuple[float, float]] = field(default_factory=list)
    # Requests by how they ended otherwise.
    failures: Counter[str] = field(default_factory=Counter)
    # Seconds from submission to each refusal that was not immediate.
    late_refusals: list[float] = field(default_factory=list)

    def goodput(self, since: float, until: float) -> float:
        """Answers per second in this stretch."""
        return sum(since <= at < until for at, _ in self.answers) / (until - since)

    def waits(self, since: float = 0.0) -> list[float]:
        """How long the answered ones waited, shortest first."""
        return sorted(wait for at, wait in self.answers if at >= since)


class Fleet:
    """Runs the story."""

    def __init__(
        self, model: Model, *, slots: int = 2, seed: int = 1, reports: bool = True, **rig: Any
    ) -> None:
        self.model, self.slots, self.reports = model, slots, reports
        self.rig = Rig(slots=slots, **rig)
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._begin = self.rig.clock.now
        self._arrived: deque[tuple[str, float]] = deque()
        self._free = slots
        self._seen = 0
        # Requests that were worked on for nobody.
        self.wasted = 0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.rig.clock.now - self._begin

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Has something happen so long after the beginning."""
        heapq.heappush(self._events, (self._begin + moment, next(self._numbers), act))

    async def run(self, seconds: float, *tenants: Tenant) -> None:
        """Lets so much time pass."""
        await self.rig.listening()
        for tenant in tenants:
            self.at(tenant.start, lambda tenant=tenant: self._arrive(tenant))  # type: ignore[misc]
        self.at(0.0, self._tick)
        while self._events and self._events[0][0] < self._begin + seconds:
            self.rig.clock.now, _, act = heapq.heappop(self._events)
            act()
            await turns(4)
            for envelope in self.rig.broker.envelopes[self._seen :]:
                self.at(
                    self.now + _TRANSIT_SECONDS, lambda envelope=envelope: self._receive(envelope)
                )  # type: ignore[misc]
            self._seen = len(self.rig.broker.envelopes)

    def _tick(self) -> None:
        self.rig.dispatcher.expire()
        self.at(self.now + _TICK_SECONDS, self._tick)

    def _arrive(self, tenant: Tenant) -> None:
        if self.now < tenant.stop:
            self.at(self.now + self._random.expovariate(tenant.rate), lambda: self._arrive(tenant))
            self.submit(tenant)

    def submit(self, tenant: Tenant) -> None:
        """One request."""
        came = self.now

        def answered(outcome: Outcome) -> None:
            if isinstance(outcome, work_pb2.WorkReply) and not outcome.HasField("error"):
                tenant.answers.append((came, self.now - came))
                return
            reason = outcome.reason if isinstance(outcome, ServiceError) else outcome.error.reason
            tenant.failures[reason] += 1
            if reason == "OVERLOADED":
                tenant.late_refusals.append(self.now - came)

        item = work_pb2.WorkItem(method="m", priority=tenant.priority)
        deadline = self.rig.clock.now + tenant.deadline
        try:
            self.rig.dispatcher.submit(
                KEY, item, deadline=deadline, tenant=tenant.name, on_reply=answered
            )
        except ServiceError as exc:
            tenant.failures[exc.metadata.get("reason_detail", exc.reason)] += 1

    def _receive(self, envelope: work_pb2.WorkEnvelope) -> None:
        self._arrived.extend(
            (item.id, self.now + item.timeout_ms / 1000) for item in envelope.items
        )
        self._call()

    def _call(self) -> None:
        while self._free and self._arrived:
            joined = [
                self._arrived.popleft() for _ in range(min(len(self._arrived), self.model.largest))
            ]
            late = [id for id, deadline in joined if deadline <= self.now]
            error = to_work_error(DeadlinePassed("late"))
            self._reply([work_pb2.WorkReply(id=id, error=error) for id in late])
            live = [(id, deadline) for id, deadline in joined if deadline > self.now]
            if live:
                self._free -= 1
                seconds = self.model.seconds(len(live)) * self._random.uniform(0.9, 1.1)
                self.at(
                    self.now + seconds, lambda live=live, seconds=seconds: self._done(live, seconds)
                )  # type: ignore[misc]

    def _done(self, live: list[tuple[str, float]], seconds: float) -> None:
        self._free += 1
        self.wasted += sum(deadline <= self.now for _, deadline in live)
        facts = (
            {"compute_ns": int(seconds * 1e9), "rows": 1, "batch_rows": len(live)}
            if self.reports
            else {}
        )
        leads = {"leads": True} if self.reports else {}
        first, *others = [id for id, _ in live]
        replies = [work_pb2.WorkReply(id=first, **facts, **leads)]
        self._reply(replies + [work_pb2.WorkReply(id=id, **facts) for id in others])
        self._call()

    def _reply(self, replies: list[work_pb2.WorkReply]) -> None:
        if replies:
            self.at(self.now + _TRANSIT_SECONDS, lambda: self.rig.broker.answer(replies))
