"""A runtime trusts nobody: work that lies, put straight into its queue, is refused item by item."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from services.chassis.broker.connect import open_broker
from services.chassis.broker.port import Broker, Delivery, Message
from services.chassis.rpc.channel import ServiceChannel
from stellwerk.client import connect
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire import topology
from stellwerk.wire.errors import InvalidInput
from tests.fakes.eventually import eventually
from tests.journey import lies
from tests.journey.stack import Platform


def runtimes_way_in(platform: Platform) -> tuple[str, str]:
    """The router's address and a token, as a runtime has them."""
    told = psutil.Process(platform.pids()["runtime-1"]).environ()
    key = Path(told["STELLWERK_SERVICE_KEY_FILE"]).read_text().strip()
    _, issued = platform.call("POST", "/v1/tokens:issue", {"apiKey": key}, token="")
    return told["STELLWERK_ROUTER"], issued["accessToken"]


@asynccontextmanager
async def broker_of(platform: Platform) -> AsyncIterator[Broker]:
    """The platform's broker, with a runtime's credentials."""
    if platform.broker != "pull":
        broker = open_broker(platform.broker, name="intruder")
        await broker.start()
        yield broker
        await broker.close()
        return
    router, issued = runtimes_way_in(platform)

    async def token() -> str:
        return issued

    async with grpc.aio.insecure_channel(router) as channel:
        broker = open_broker("pull", channel=ServiceChannel(channel, "router", token))
        await broker.start()
        yield broker
        await broker.close()


class Intruder:
    """Puts work into a model's queue and hears the answers."""

    def __init__(self, broker: Broker, key: str) -> None:
        self._broker, self._key = broker, key
        self._replies = topology.reply_queue(f"intruder-{uuid.uuid4().hex}")
        self.heard: dict[str, work_pb2.WorkReply] = {}

    async def listen(self) -> None:
        await eventually(lambda: not self._broker.problem)
        await self._broker.consume(self._replies, self._hear, prefetch=0, acks=False)

    def _hear(self, delivery: Delivery) -> None:
        envelope = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body)
        for reply in envelope.replies:
            self.heard[reply.id] = reply
        for group in envelope.groups:
            self.heard[group.id] = group.reply

    async def send(self, body: bytes) -> None:
        queue = topology.inference_queue(self._key).name
        await self._broker.publish(
            queue, Message(body, reply_to=self._replies.name, expiration_ms=20_000)
        )

    async def ask(self, **items: work_pb2.WorkItem) -> dict[str, work_pb2.WorkReply]:
        """The replies to items that travel together, by id."""
        for name, item in items.items():
            item.id = name
        await self.send(
            work_pb2.WorkEnvelope(key=self._key, items=items.values()).SerializeToString()
        )
        await eventually(lambda: items.keys() <= self.heard.keys())
        return {name: self.heard[name] for name in items}


def honest() -> work_pb2.WorkItem:
    return lies.as_work(lies.raw())


def is_right(reply: work_pb2.WorkReply) -> bool:
    return [output.data for output in reply.outputs] == [
        honest().inputs[0].data,
        honest().inputs[1].data,
    ]


@pytest.fixture
def key(platform: Platform, carrier: str) -> str:
    """What the model's queue is named after; it is served."""
    with connect(platform.http, platform.token) as client:
        client.runtime.model(carrier).call(
            {"numbers": np.array([[1, 2]], np.int32), "words": np.array(["a"])}
        )
        return topology.serving_key(client.models.describe(carrier).name, Requirements())


async def test_lies_in_one_message_with_honest_work(platform: Platform, key: str) -> None:
    wrong = {
        name: lies.as_work(request)
        for name, request in lies.over_grpc().items()
        if name.startswith("raw, ")
    }
    # To ask twice for an output is no lie about a tensor; the runtime answers it.
    for name in ("raw, entry twice", "raw, output twice"):
        del wrong[name]
    wrong["method"] = honest()
    wrong["method"].method = "fly"
    wrong["no inputs"] = work_pb2.WorkItem(method="predict")
    before = platform.pids()

    async with broker_of(platform) as broker:
        intruder = Intruder(broker, key)
        await intruder.listen()
        replies = await intruder.ask(**{"first": honest(), **wrong, "last": honest()})

        for name in wrong:
            assert replies[name].error.reason == InvalidInput.reason, (name, replies[name].error)
        assert is_right(replies["first"]) and is_right(replies["last"])
    assert platform.pids() == before


async def test_what_is_no_work_at_all(platform: Platform, key: str) -> None:
    before = platform.pids()
    strange = honest()
    strange.timeout_ms, strange.priority, strange.stream = 2**32 - 1, 2**32 - 1, True
    strange.context["x-request-id"] = "i" * 100_000
    strange.context["traceparent"] = "00-nothing"

    async with broker_of(platform) as broker:
        intruder = Intruder(broker, key)
        await intruder.listen()
        for body in (b"", b"\xff" * 1000, work_pb2.WorkEnvelope(key="another").SerializeToString()):
            await intruder.send(body)
        replies = await intruder.ask(strange=strange, honest=honest())
        assert is_right(replies["strange"]) and is_right(replies["honest"])
        await asyncio.gather(*[intruder.send(b"\x12\xff\xff\xff\xff\x0f") for _ in range(100)])
        assert is_right((await intruder.ask(after=honest()))["after"])
    assert platform.pids() == before


async def test_groups_that_no_router_sends(platform: Platform, key: str) -> None:
    before = platform.pids()
    groups = [
        work_pb2.WorkGroup(id="crowd", form=honest(), timeouts_ms=[0] * 10_000),
        work_pb2.WorkGroup(id="texts", form=honest(), timeouts_ms=[9000, 9000]),
        work_pb2.WorkGroup(id="columns", form=honest(), timeouts_ms=[1] * 3, request_ids=["a"]),
        work_pb2.WorkGroup(id="no form", timeouts_ms=[1]),
        work_pb2.WorkGroup(id="nobody", form=honest()),
    ]
    envelope = work_pb2.WorkEnvelope(key=key, groups=groups)

    async with broker_of(platform) as broker:
        intruder = Intruder(broker, key)
        await intruder.listen()
        await intruder.send(envelope.SerializeToString())

        assert is_right((await intruder.ask(after=honest()))["after"])
        await eventually(lambda: len(intruder.heard) == len(groups))
    answered = {group.id for group in groups if group.timeouts_ms}
    assert {intruder.heard[name].error.reason for name in answered} == {InvalidInput.reason}
    assert platform.pids() == before
