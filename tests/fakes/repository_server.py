"""The real repository in this process, with a real gRPC server and database, a fake issuer, ledger
and broker.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from pymongo import AsyncMongoClient

from services.chassis.broker.port import Message
from services.chassis.lifecycle.process import Process
from services.chassis.rpc.channel import ServiceChannel
from services.repository.config import RepositorySettings
from services.repository.main import assemble
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.repository.v1 import repository_service_pb2_grpc
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import BrokerDown
from tests.fakes.issuer import FakeIssuer
from tests.fakes.ledger import FakeLedger

ZIP = b"PK\x03\x04"


class FakePublisher:
    """Keeps events in a list, or is away."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.away = False

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        if self.away:
            raise BrokerDown("the broker is away")
        event = event_pb2.Event.FromString(message.body)
        assert event.kind == routing_key
        self.events.append(event)


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = 10.0) -> None:
    """Returns when the condition holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.02)


def skops_bytes(size: int, salt: bytes = b"") -> bytes:
    """Bytes that begin as a skops file does."""
    return (ZIP + salt + hashlib.sha256(salt).digest() * (size // 32 + 1))[:size]


def _channel(address: str) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.insecure_channel(address, options=options)


class RepositoryServer:
    """One running repository and what surrounds it."""

    def __init__(self, url: str, database: str, **settings: Any) -> None:
        self.issuer, self.ledger, self.broker = FakeIssuer(), FakeLedger(), FakePublisher()
        self.settings = RepositorySettings(
            mongo_url=url, mongo_database=database, log_level="error", drain_seconds=2, **settings
        )
        self.client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
        self.database = self.client[database]
        self._channels: list[grpc.aio.Channel] = []

    async def start(self) -> None:
        async def token() -> tuple[str, float]:
            return self.issuer.token("services/repository", ("service.repository", "*")), 600.0

        self.process = Process("repository", self.settings, audit_sink=self.ledger, token=token)
        self.process.verifier.trust(self.issuer.bundle())
        assemble(self.process, self.settings, self.broker)
        self._running = asyncio.create_task(self.process.run())
        await until(lambda: bool(self.process.bound_port) and not self.process.readiness.reasons())

    async def stop(self) -> None:
        self.process.stop()
        await asyncio.wait_for(self._running, 20)
        for channel in self._channels:
            await channel.close()
        await self.client.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.process.bound_port}"

    def bare(self) -> grpc.aio.Channel:
        """A channel of its own connection."""
        channel = _channel(self.address)
        self._channels.append(channel)
        return channel

    def as_(self, *grants: tuple[str, str], subject: str = "principals/ada") -> Caller:
        """A caller with these grants, an editor everywhere if none is given."""
        return Caller(
            self.bare(),
            self.issuer.token(subject, *(grants or (("editor", "*"), ("operator", "*")))),
        )

    async def process_idle(self) -> None:
        """Returns when no transfer and no upload is under way."""
        transfers = "stellwerk_repository_transfers"

        async def idle() -> bool:
            await asyncio.sleep(0.2)
            streaming = await self.database.uploads.count_documents({"state": "streaming"})
            return not streaming and not self.process.metrics.get_sample_value(transfers)

        await until(idle)

    async def counts(self) -> dict[str, int]:
        """How many documents there are of everything an upload writes."""
        names = ("fs.chunks", "fs.files", "uploads", "versions", "models", "counters")
        return {name: await self.database[name].count_documents({}) for name in names}


class Caller:
    """Calls the repository under one token; its errors are ours."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        async def source() -> str:
            return token

        self.token = token
        self.stub: Any = repository_service_pb2_grpc.RepositoryServiceStub(
            ServiceChannel(channel, "repository", source)
        )

    async def open(self, model: str, **spec: Any) -> str:
        """Opens an upload for buckets/default/models/{model}; returns its name."""
        parent = model if "/" in model else f"buckets/default/models/{model}"
        version = pb.ModelVersion(**{"format": "skops", **spec})
        return (
            await self.stub.CreateUpload(
                pb.CreateUploadRequest(parent=parent, model_version=version)
            )
        ).name

    async def send(self, upload: str, data: bytes | Iterable[bytes]) -> pb.ModelVersion:
        """Streams the artifact of an upload."""
        answer = await self.stub.UploadArtifact(pieces(upload, data))
        return answer.model_version

    async def put(self, model: str, data: bytes = b"", **spec: Any) -> pb.ModelVersion:
        """Opens an upload and streams it."""
        return await self.send(await self.open(model, **spec), data or skops_bytes(100))

    async def fetch(self, version: str) -> bytes:
        """Downloads an artifact."""
        parts = [
            part
            async for part in self.stub.DownloadArtifact(pb.DownloadArtifactRequest(name=version))
        ]
        return b"".join(part.artifact.data for part in parts)


async def is_streaming(server: RepositoryServer) -> bool:
    return bool(await server.database.uploads.count_documents({"state": "streaming"}))


async def pieces(
    upload: str, data: bytes | Iterable[bytes], size: int = 1024 * 1024
) -> AsyncIterator[pb.UploadArtifactRequest]:
    """The messages of an upload."""
    parts = (
        (data[i : i + size] for i in range(0, len(data), size)) if isinstance(data, bytes) else data
    )
    for part in parts:
        message = pb.UploadArtifactRequest(name=upload)
        message.artifact.data = part
        yield message
        upload = ""


async def held(
    upload: str, size: int, gate: asyncio.Event | None = None
) -> AsyncIterator[pb.UploadArtifactRequest]:
    """The messages of an upload that stops before its end until the gate opens, for ever without
    one.
    """
    async for message in pieces(upload, skops_bytes(size)):
        yield message
    await (gate or asyncio.Event()).wait()


@asynccontextmanager
async def repository(url: str, database: str, **settings: Any) -> AsyncIterator[RepositoryServer]:
    """A running repository with a database of its own, dropped at the end."""
    server = RepositoryServer(url, database, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.client.drop_database(database)
        await server.stop()


@asynccontextmanager
async def connect_as(address: str, token: str) -> AsyncIterator[Caller]:
    """A caller of a repository in another process."""
    async with _channel(address) as channel:
        yield Caller(channel, token)
