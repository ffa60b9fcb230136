"""A dispatcher whose broker and clock are in the hand of a test."""

from __future__ import annotations

from typing import Any, cast

import structlog
from prometheus_client import CollectorRegistry

from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.metrics import DispatchMetrics
from services.router.queueing.admission import AdmissionLimits
from services.router.queueing.pending_requests import Outcome, PendingRequests
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import ServiceError
from tests.fakes.held_broker import Clock, HeldBroker, turns

KEY = "default/iris/1/any"


class Rig:
    """It submits to one key and notes what each caller hears."""

    def __init__(self, *, slots: int = 1, **limits: int) -> None:
        self.broker, self.clock, self.pending = HeldBroker(), Clock(), PendingRequests()
        self.registry = CollectorRegistry()
        self.slots = slots
        self.dispatcher = Dispatcher(
            cast(Any, self.broker),
            self.pending,
            "r1",
            structlog.get_logger(),
            slots=lambda key: self.slots,
            limits=AdmissionLimits(**limits),
            metrics=DispatchMetrics(self.registry),
            clock=self.clock,
        )
        # Time passes when the test says so, not by itself.
        self.dispatcher._ticking = True
        self.heard: dict[str, list[Outcome]] = {}

    async def listening(self) -> Rig:
        await self.dispatcher.listen()
        return self

    def submit(
        self,
        method: str = "m",
        *,
        seconds: float = 10.0,
        priority: int = 0,
        size: int = 0,
        **named: Any,
    ) -> str:
        item = work_pb2.WorkItem(
            method=method, priority=priority, outputs=["x" * size] if size else []
        )
        heard: list[Outcome] = []
        id = self.dispatcher.submit(
            KEY, item, deadline=self.clock.now + seconds, on_reply=heard.append, **named
        )
        assert item.id == id
        self.heard[id] = heard
        return id

    async def answer(self, *ids: str, **fields: Any) -> None:
        self.broker.answer([work_pb2.WorkReply(id=id, **fields) for id in ids])
        await turns()

    def errors(self, id: str) -> list[str]:
        return [outcome.reason for outcome in self.heard[id] if isinstance(outcome, ServiceError)]

    def rejections(self, reason: str) -> float:
        labels = {"model_version": "buckets/default/models/iris/versions/1", "reason": reason}
        return self.registry.get_sample_value("stellwerk_rejections_total", labels) or 0.0

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.dispatcher.expire()
        await turns()


async def rig(**named: Any) -> Rig:
    """One that hears answers."""
    return await Rig(**named).listening()
