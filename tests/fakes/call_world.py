"""A router from a gateway's stream to its broker, with both ends and the clock in a test's hand. It
takes calls one by one or in groups, and tells what became of each in the same words.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Message
from services.chassis.context import Principal
from services.chassis.telemetry import CallMetrics, Tracing
from services.router.calls.call_log import CallLog
from services.router.calls.gateway_stream import GatewayStream
from services.router.calls.invocations import Invocations
from services.router.calls.statistics import Statistics
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.metrics import DispatchMetrics
from services.router.naming.directory import FormerVersions
from services.router.naming.target import ModelTarget
from services.router.queueing.admission import AdmissionLimits
from services.router.queueing.pending_requests import PendingRequests
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.type.v1 import serving_pb2
from stellwerk.wire import columns
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import ModelNotFound, Unauthenticated
from stellwerk.wire.names import ModelName
from stellwerk.wire.permissions import Grant
from tests.fakes.held_broker import Clock, HeldBroker, turns
from tests.fakes.log import FakeLog

TENANTS = {1: "ada", 2: "ben", 3: "nobody"}
GRANTS = {"ada": (Grant("caller"),), "ben": (Grant("caller"),), "nobody": ()}


@dataclass(frozen=True)
class Batch:
    """Calls of one form and one credential; each is known by its number, which is its data too."""

    numbers: tuple[int, ...]
    timeouts_ms: tuple[int, ...]
    credential: int = 1
    model: str = "iris"
    method: str = "predict"
    datatype: str = "INT32"
    outputs: tuple[str, ...] = ()
    priority: int = 0

    def work(self, number: int) -> work_pb2.WorkItem:
        """The work of one call."""
        item = work_pb2.WorkItem(method=self.method, outputs=self.outputs, priority=self.priority)
        for name, factor in (("b", 2), ("a", 1)):
            data = (number * factor).to_bytes(4, "little")
            item.inputs.add(name=name, datatype=self.datatype, shape=[1, 1], data=data)
        return item

    def calls(self) -> list[messages.Call]:
        """The calls one by one."""
        return [
            messages.Call(
                id=number,
                credential=self.credential,
                model=self.model,
                work=self.work(number),
                timeout_ms=timeout_ms,
                request_id=f"r{number}",
                peer="10.0.0.1",
            )
            for number, timeout_ms in zip(self.numbers, self.timeouts_ms, strict=True)
        ]

    def group(self) -> messages.CallGroup:
        """The calls as a group."""
        return messages.CallGroup(
            credential=self.credential,
            model=self.model,
            work=columns.join([self.work(number) for number in self.numbers]),
            ids=self.numbers,
            timeouts_ms=self.timeouts_ms,
            request_ids=[f"r{number}" for number in self.numbers],
            peers=["10.0.0.1"],
        )


def version(name: str, **serving: Any) -> repository.ModelVersion:
    """A version that adds up its inputs a and b."""
    made = repository.ModelVersion(
        name=f"buckets/default/models/{name}/versions/1",
        serving=serving_pb2.ServingPolicy(**serving),
    )
    for method, decoupled in (("predict", False), ("count", True)):
        signature = made.signature.add(method=method, decoupled=decoupled)
        for spec in ("a", "b"):
            signature.inputs.add(name=spec, datatype="INT32", shape=[-1, 1])
        signature.outputs.add(name="y", datatype="INT32", shape=[-1, 1])
    return made


class _Slots:
    """Slots by key: one, but for the cold model none until it is ready."""

    def __init__(self, ready: asyncio.Event) -> None:
        self._ready = ready

    def __getitem__(self, key: str) -> int:
        return int("cold" not in key or self._ready.is_set())


class _Directory:
    """Knows the served models, has to be asked for "cold", and finds no other."""

    def __init__(self, served: dict[str, ModelTarget]) -> None:
        self.former_versions = FormerVersions()
        self._served = served

    def known(self, name: ModelName) -> ModelTarget | None:
        return self._served.get(name.model) if name.model != "cold" else None

    async def resolve(self, name: ModelName) -> ModelTarget:
        if name.model not in self._served:
            raise ModelNotFound(f"there is no model {name.model}", name=str(name))
        return self._served[name.model]


class _HeldEvents(HeldBroker):
    """Keeps the cancellations, too."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: list[work_pb2.Cancellation] = []

    async def publish_event(self, routing_key: str, message: Message) -> None:
        self.cancelled.append(work_pb2.Cancellation.FromString(message.body))


@dataclass
class Sent:
    """A call that was sent: by itself, or as the member of a part at a position."""

    envelope: int
    id: str
    position: int
    members: int
    timeout_ms: int


class World:
    """One router. `grouped`: calls come in groups, else one by one."""

    def __init__(self, *, grouped: bool, slots: int, **limits: int) -> None:
        self.grouped = grouped
        self.broker = _HeldEvents()
        self.clock = Clock()
        self.pending = PendingRequests()
        self.registry = CollectorRegistry()
        self.records: list[audit.AuditRecord] = []
        self.statistics = Statistics()
        self.log = FakeLog()
        self.dispatcher = Dispatcher(
            cast(Any, self.broker),
            self.pending,
            "r1",
            cast(Any, self.log),
            slots=lambda key: slots,
            limits=AdmissionLimits(**limits),
            metrics=DispatchMetrics(self.registry),
            clock=self.clock,
        )
        # Time passes when the test says so, not by itself.
        self.dispatcher._ticking = True
        self.ready = asyncio.Event()
        self.stream = self._open()
        # Calls by number: where they were sent, and their answers.
        self.sent: dict[int, Sent] = {}
        self.answers: dict[int, list[Any]] = defaultdict(list)
        self.envelopes: list[list[int]] = []

    def _open(self) -> GatewayStream:
        served = {
            "iris": ModelTarget(version("iris", priority_levels=3, default_priority=2)),
            "plain": ModelTarget(version("plain", max_queue_size=6)),
            "cold": ModelTarget(version("cold")),
        }
        registry = SimpleNamespace(slots=_Slots(self.ready))
        replicas = {
            target.name: SimpleNamespace(key=f"default/{name}/1/any", kept=True, last_used=0.0)
            for name, target in served.items()
        }

        async def make_ready(*_: Any) -> None:
            await self.ready.wait()

        reconciler = SimpleNamespace(
            registry=registry, desire=lambda model, _: replicas[model.name], make_ready=make_ready
        )
        invocations = Invocations(
            cast(Any, _Directory(served)),
            cast(Any, reconciler),
            self.dispatcher,
            self.statistics,
            max_input_bytes=1000,
        )
        call_log = CallLog(
            CallMetrics(self.registry),
            self.statistics,
            Tracing("r", "r", ""),
            self.records.append,
            self.log,
        )

        def verify(token: str) -> Principal:
            if token not in GRANTS:
                raise Unauthenticated("a valid bearer token is needed")
            return Principal(f"principals/{token}", GRANTS[token])

        verifier: Any = SimpleNamespace(verify=verify)
        return GatewayStream(invocations, verifier, call_log, self.log, self.clock)

    async def start(self) -> None:
        await self.dispatcher.listen()
        credentials = [messages.Credential(id=id, token=name) for id, name in TENANTS.items()]
        await self._take(messages.ExchangeRequest(credentials=credentials))

    async def call(self, batches: Sequence[Batch]) -> None:
        """Sends batches of calls in one frame."""
        frame = messages.ExchangeRequest()
        for batch in batches:
            if self.grouped:
                frame.groups.append(batch.group())
            else:
                frame.calls.extend(batch.calls())
        await self._take(frame)

    async def cancel(self, numbers: Iterable[int]) -> None:
        """The callers of these calls go away."""
        await self._take(messages.ExchangeRequest(cancelled=numbers))

    async def _take(self, frame: messages.ExchangeRequest) -> None:
        async def frames() -> AsyncIterator[messages.ExchangeRequest]:
            # As it comes from the wire.
            yield messages.ExchangeRequest.FromString(frame.SerializeToString())

        await self.stream.read(frames())
        await self.settle()

    async def settle(self) -> None:
        """Lets everything run that can, and takes note of what was sent and answered."""
        await turns(12)
        for envelope in self.broker.envelopes[len(self.envelopes) :]:
            numbers = []
            place = len(self.envelopes)
            for item in envelope.items:
                number = _number(item.context[keys.REQUEST_ID])
                self.sent[number] = Sent(place, item.id, 0, 0, item.timeout_ms)
                numbers.append(number)
                self._check_work(item, number)
            for group in envelope.groups:
                count = len(group.timeouts_ms)
                columns.check(group.form, count, group.request_ids)
                for position, request_id in enumerate(group.request_ids):
                    number = _number(request_id)
                    timeout_ms = group.timeouts_ms[position]
                    self.sent[number] = Sent(place, group.id, position, count, timeout_ms)
                    numbers.append(number)
                    self._check_work(columns.member(group.form, position, count), number)
            self.envelopes.append(numbers)
        while parts := self.stream.outgoing.take():
            frame = messages.ExchangeResponse.FromString(b"".join(parts))
            for answer in frame.answers:
                self.answers[answer.id].append(_told(answer.model_version, answer.reply))
            for told in frame.groups:
                for index, id in enumerate(told.ids):
                    reply = columns.member_reply(told.reply, index, len(told.ids))
                    self.answers[id].append(_told(told.model_version, reply))

    def _check_work(self, work: work_pb2.WorkItem, number: int) -> None:
        found = [(tensor.name, int.from_bytes(tensor.data, "little")) for tensor in work.inputs]
        assert found == [("a", number), ("b", 2 * number)]
        assert work.context[keys.PRINCIPAL].startswith("principals/")

    async def reply(self, replies: Sequence[work_pb2.WorkReplyGroup]) -> None:
        """Delivers replies, given as to the parts of a world of groups."""
        self.broker.deliver(work_pb2.WorkReplyEnvelope(groups=replies).SerializeToString())
        await self.settle()

    async def reply_singly(self, replies: Sequence[tuple[int, work_pb2.WorkReply]]) -> None:
        """Delivers replies to calls by their numbers."""
        for number, reply in replies:
            reply.id = self.sent[number].id
        self.broker.answer([reply for _, reply in replies])
        await self.settle()

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.dispatcher.expire()
        await self.settle()

    def facts(self) -> dict[str, Any]:
        """Everything that must not depend on whether calls travel in groups."""
        return {
            "envelopes": [sorted(numbers) for numbers in self.envelopes],
            "timeouts": {number: sent.timeout_ms for number, sent in self.sent.items()},
            "expirations": [message.expiration_ms for message in self.broker.messages],
            "answers": {number: told for number, told in self.answers.items() if told},
            "open": sorted(self.stream.calls),
            "records": sorted(
                (one.request_id, one.outcome, one.principal, one.resource, one.peer, one.count)
                for one in self.records
            ),
            "metrics": self._metrics(),
            "statistics": {
                name: _counts(self.statistics.of(name)) for name in self.statistics.versions()
            },
            "cancelled": self._cancelled(),
            "queues": {
                key: (
                    queue.waiting.count,
                    queue.waiting.cost,
                    queue.underway,
                    queue.sends,
                    queue.window.size,
                    queue.window.rate,
                    queue.window.fastest,
                    queue._saturated,
                )
                for key, queue in self.dispatcher._queues.items()
            },
            "tenants": dict(self.dispatcher._backlog.tenants),
            "pending": {key: self.pending.count(key) for key in self.dispatcher.used_keys()},
            "errors": Counter(self.log.errors),
        }

    def _metrics(self) -> dict[Any, float]:
        wanted = (
            "stellwerk_rejections_total",
            "stellwerk_rpc_total",
            "stellwerk_rpc_seconds_count",
        )
        gauges = ("stellwerk_queued", "stellwerk_in_flight")
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name in (*wanted, *gauges)
        }

    def _cancelled(self) -> list[int]:
        places = {(sent.id, sent.position): number for number, sent in self.sent.items()}
        found = []
        for event in self.broker.cancelled:
            found += [places[id, 0] for id in event.ids]
            found += [places[group.id, at] for group in event.groups for at in group.members]
        return sorted(found)


def _number(request_id: str) -> int:
    return int(request_id.removeprefix("r"))


def _told(model_version: str, reply: work_pb2.WorkReply) -> Any:
    """An answer, with the numbers in its message that depend on the moment left out."""
    if reply.HasField("error"):
        error = reply.error
        words = re.sub(r"[0-9]+(\.[0-9]+)?(e-[0-9]+)?", "#", error.message)
        return (model_version, error.code, error.reason, words, sorted(error.metadata))
    outputs = [(tensor.name, bytes(tensor.data)) for tensor in reply.outputs]
    return (model_version, outputs, reply.runtime, reply.queue_ns, reply.rows)


def _counts(counts: Any) -> Any:
    return (
        counts.rows, counts.executions, counts.oks, counts.fails, counts.queue_ns, counts.infer_ns,
        counts.hits, {size: batch.calls for size, batch in counts.batches.items()},
    )  # fmt: skip
