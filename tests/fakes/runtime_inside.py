"""A runtime's inside, from its queue to its replies, over a real broker hub; and a router's end of
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Consumer, Delivery, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.chassis.telemetry import Tracing
from services.runtime.batching.scheduler import Scheduler
from services.runtime.formats.port import FormatSettings, LoadedModel
from services.runtime.formats.sklearn.plugin import SkopsFormat
from services.runtime.intake.consumer import WorkConsumer
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.artifacts import ArtifactCache
from services.runtime.models.cache import ModelCache
from services.runtime.replies.responder import Responder
from services.runtime.replies.response_cache import ResponseCache
from services.runtime.replies.sender import ReplySender
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire import columns
from stellwerk.wire.topology import inference_queue, reply_queue, serving_key
from tests.fakes.log import FakeLog
from tests.fakes.repository_source import FakeRepository

GIB = 1 << 30
REPLIES = reply_queue("router-1")


def member_id(group_id: str, member: int) -> str:
    """Returns the name under which the answer to a member of a group is kept."""
    return f"{group_id}/{member}"


class SkopsLoader:
    """Loads skops files and nothing else."""

    format = SkopsFormat(FormatSettings())

    def prepare(self, version: repository_pb2.ModelVersion) -> None:
        self.format.prepare()

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel:
        return self.format.load(path, version, "auto")


class GivenLoader:
    """Has the model in its hand."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prepare(self, version: repository_pb2.ModelVersion) -> None: ...

    def load(self, path: Path, version: repository_pb2.ModelVersion) -> LoadedModel:
        model: LoadedModel = self.model
        return model


class HeldBroker(HubBroker):
    """A broker whose publishing can be held back."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.gate = asyncio.Event()
        self.gate.set()

    def post(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> asyncio.Future[None]:
        async def send() -> None:
            await self.gate.wait()
            await self.publish(queue, message, mandatory=mandatory, timeout=timeout)

        return asyncio.ensure_future(send())


class Rig:
    """A runtime's inside and a router's end of the broker."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 2,
        capacity: int = GIB,
        model: Any = None,
        max_message_bytes: int = 1 << 26,
    ) -> None:
        loader = SkopsLoader() if model is None else GivenLoader(model)
        self.repository = FakeRepository()
        self.registry = CollectorRegistry()
        self.log = FakeLog()
        self.hub = Hub()
        self.router, self.broker = HubBroker(self.hub), HeldBroker(self.hub)
        self.metrics = RuntimeMetrics(self.registry)
        self.artifacts = ArtifactCache(
            folder / "cache", GIB, self.repository.download, fetched=lambda: None
        )
        self.cache = ModelCache(capacity, self.artifacts, loader, self.metrics)
        self.scheduler = Scheduler(slots, max_batch_rows=64)
        responder = Responder(
            "runtimes/r1",
            ReplySender(self.broker, max_message_bytes=max_message_bytes, log=self.log),
            ResponseCache(1 << 20),
            self.metrics,
            tracing=Tracing("runtime", "r1", ""),
            log=self.log,
        )
        self.consumer = WorkConsumer(
            self.broker, self.cache, self.scheduler, responder, log=self.log
        )
        self.answers: dict[str, asyncio.Future[work_pb2.WorkReply]] = {}
        # Every reply, in the order of arrival; one to members of a group as a reply to each.
        self.replies: list[work_pb2.WorkReply] = []
        # Replies to members as they were sent, and the members of each group that was sent.
        self.group_replies: list[work_pb2.WorkReplyGroup] = []
        self.members: dict[str, int] = {}
        self.heard: Callable[[work_pb2.WorkReply], None] = lambda reply: None

    async def start(self) -> None:
        await self.artifacts.start()
        await self.router.start()
        await self.broker.start()
        await self.router.consume(REPLIES, self._on_reply, prefetch=0)

    def _on_reply(self, delivery: Delivery) -> None:
        envelope = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body)
        self.group_replies += envelope.groups
        for reply in [*envelope.replies, *self._taken_apart(envelope.groups)]:
            self.replies.append(reply)
            if not reply.more:
                self.answers[reply.id].set_result(reply)
            self.heard(reply)
        delivery.ack()

    def _taken_apart(
        self, groups: Iterable[work_pb2.WorkReplyGroup]
    ) -> Iterator[work_pb2.WorkReply]:
        """Yields the reply to each member, by the id that `member_id` gives it."""
        for group in groups:
            members = group.members or range(self.members[group.id])
            for place, member in enumerate(members):
                reply = columns.member_reply(group.reply, place, len(members))
                reply.id = member_id(group.id, member)
                yield reply

    def add(self, version: repository_pb2.ModelVersion) -> repository_pb2.ModelVersion:
        """Stores a version whose artifact does not matter."""
        return self.repository.add(version, b"artifact")

    async def ask(
        self, version: repository_pb2.ModelVersion, *items: work_pb2.WorkItem
    ) -> list[work_pb2.WorkReply]:
        """Sends the items as one message; the last reply to each."""
        return await self.ask_all(version, work_pb2.WorkEnvelope(items=items))

    async def ask_all(
        self, version: repository_pb2.ModelVersion, envelope: work_pb2.WorkEnvelope
    ) -> list[work_pb2.WorkReply]:
        """Sends the envelope; the last reply to each item and each member of its groups."""
        asked = self.expect(envelope)
        await self.send(version, envelope.SerializeToString())
        return await asyncio.wait_for(asyncio.gather(*asked), 20)

    def expect(self, envelope: work_pb2.WorkEnvelope) -> list[asyncio.Future[work_pb2.WorkReply]]:
        """Returns the answers that are to come to what the envelope holds."""
        ids = [item.id for item in envelope.items]
        for group in envelope.groups:
            self.members[group.id] = len(group.timeouts_ms)
            ids += [member_id(group.id, member) for member in range(len(group.timeouts_ms))]
        for name in ids:
            self.answers[name] = asyncio.get_running_loop().create_future()
        return [self.answers[name] for name in ids]

    async def send(self, version: repository_pb2.ModelVersion, body: bytes) -> None:
        queue = inference_queue(serving_key(version.name, version.requires)).name
        await self.router.publish(queue, Message(body, reply_to=REPLIES.name))

    async def serve(self, version: repository_pb2.ModelVersion) -> Consumer:
        return await self.consumer.open(serving_key(version.name, version.requires), version)

    async def waiting(self, version: repository_pb2.ModelVersion) -> int:
        """Messages that are in nobody's hand."""
        queue = inference_queue(serving_key(version.name, version.requires)).name
        return (await self.broker.inspect(queue)).messages

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def rig(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    made = Rig(folder, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.cache.close()
        await made.scheduler.close()
        await made.broker.close()
        await made.router.close()
