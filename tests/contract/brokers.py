"""The three ways to have a broker, each with the faults that can befall it, for one suite."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import grpc

from services.chassis.broker.amqp.broker import AmqpBroker
from services.chassis.broker.port import Broker, Delivery
from services.chassis.broker.pull.broker import PullBroker
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.chassis.broker.pull.servicer import PullServicer
from services.chassis.rpc.channel import ServiceChannel
from services.chassis.rpc.transport import channel_options, server_options
from services.local.backing.rabbitmq import RabbitMQ
from services.local.ports import free_port
from stellwerk.job.v1 import pull_service_pb2_grpc
from stellwerk.wire.topology import QueueSpec
from tests.contract.proxy import Proxy
from tests.fakes.eventually import eventually

_MAX_MESSAGE = 64 * 1024 * 1024


async def until_not(
    condition: Callable[[], Awaitable[bool]], *, every: float = 0.05, within: float = 10.0
) -> None:
    """Waits until a condition that has to be asked for holds no more."""
    async with asyncio.timeout(within):
        while await condition():  # noqa: ASYNC110
            await asyncio.sleep(every)


def new_queue(**arguments: int) -> QueueSpec:
    """A queue that no other test uses and that goes away by itself."""
    values: dict[str, Any] = {"expires_ms": 60_000, **arguments}
    return QueueSpec(f"test.{uuid.uuid4().hex}", **values)


class Inbox:
    """A handler that keeps what it is given; acknowledges at once unless told otherwise."""

    def __init__(self, *, ack: bool = True) -> None:
        self._ack = ack
        self.deliveries: list[Delivery] = []
        self._arrived = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.take(delivery)

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._ack:
            delivery.ack()
        self._arrived.set()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.deliveries]

    async def holds(self, count: int, *, within: float = 10.0) -> list[Delivery]:
        """Waits until `count` deliveries have arrived, and returns them."""
        async with asyncio.timeout(within):
            while len(self.deliveries) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.deliveries


class Place:
    """Somewhere a broker is. Each opened broker reaches it through a proxy of its own."""

    name = ""

    def __init__(self) -> None:
        self._port = 0
        self._proxies: dict[Broker, Proxy] = {}
        self._cleanups: list[Callable[[], Awaitable[None]]] = []

    async def open(self) -> Broker:
        """A started broker with connections of its own; closed with the place."""
        proxy = Proxy(self._port)
        await proxy.start()
        broker = self._broker(proxy.port)
        self._proxies[broker] = proxy
        await broker.start()
        self._cleanups += [proxy.close, broker.close]
        await eventually(lambda: not broker.problem)
        return broker

    def network_of(self, broker: Broker) -> Proxy:
        return self._proxies[broker]

    async def lose(self, broker: Broker) -> None:
        """Ends this broker's connections for good, as its process's death would."""
        await self._proxies[broker].close()

    async def close(self) -> None:
        for cleanup in reversed(self._cleanups):
            await cleanup()

    def _broker(self, port: int) -> Broker:
        raise AssertionError("a place makes brokers")


class AtRabbit(Place):
    """A real RabbitMQ."""

    name = "amqp"

    def __init__(self, server: RabbitMQ) -> None:
        super().__init__()
        self._server, self._port = server, server.port

    def _broker(self, port: int) -> Broker:
        parts = urlsplit(self._server.url)
        url = parts._replace(netloc=parts.netloc.replace(f":{self._port}", f":{port}")).geturl()
        return AmqpBroker(url, name=f"test-{uuid.uuid4().hex[:6]}")

    async def crash(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def come_back(self) -> None:
        await asyncio.to_thread(self._server.start)


class AtRouter(Place):
    """A hub behind a real gRPC server."""

    name = "pull"

    def __init__(self) -> None:
        super().__init__()
        self._port = free_port()
        self._server: grpc.aio.Server | None = None
        self._local: HubBroker | None = None

    async def come_back(self) -> None:
        hub = Hub()
        self._local = HubBroker(hub)
        await self._local.start()
        self._server = grpc.aio.server(options=server_options(_MAX_MESSAGE))
        pull_service_pb2_grpc.add_PullServiceServicer_to_server(PullServicer(hub), self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()

    async def crash(self) -> None:
        assert self._server is not None and self._local is not None
        await self._server.stop(0)
        await self._local.close()

    async def close(self) -> None:
        await super().close()
        await self.crash()

    def _broker(self, port: int) -> Broker:
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=channel_options(_MAX_MESSAGE)
        )
        self._cleanups.append(channel.close)
        return PullBroker(ServiceChannel(channel, "router", None))


class AtHub(Place):
    """The hub, in the process that hosts it. There is no network to lose: a loss is the process's
    own end.
    """

    name = "hub"

    def __init__(self) -> None:
        super().__init__()
        self._hub = Hub()

    async def lose(self, broker: Broker) -> None:
        await broker.close()

    def _broker(self, port: int) -> Broker:
        return HubBroker(self._hub)
