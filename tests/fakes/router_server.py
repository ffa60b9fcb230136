"""What a runtime talks to, on one real gRPC port: a fleet servicer that a test directs, the hub, a
repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api import httpbody_pb2

from services.chassis.broker.port import Delivery, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.chassis.broker.pull.servicer import PullServicer
from stellwerk.job.v1 import pull_service_pb2_grpc as pull_grpc
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.repository.v1 import repository_service_pb2_grpc as repository_grpc
from stellwerk.router.v1 import fleet_service_pb2 as fleet_pb2
from stellwerk.router.v1 import fleet_service_pb2_grpc as fleet_grpc
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.topology import inference_queue, reply_queue, serving_key
from tests.fakes.repository_source import FakeRepository

REPLIES = reply_queue("router-under-test")


class FakeRouterServer(fleet_grpc.FleetServiceServicer, repository_grpc.RepositoryServiceServicer):
    """Start it again on the same port and it is a router that restarted: it remembers nothing."""

    def __init__(self, repository: FakeRepository, port: int = 0) -> None:
        self.repository = repository
        self.port = port
        self.advertisements: list[router_pb2.Runtime] = []
        self.reports: list[fleet_pb2.Report] = []
        self.metadata: list[dict[str, str]] = []
        self.orders: asyncio.Queue[fleet_pb2.AttachResponse] = asyncio.Queue()
        self.hub = Hub()
        self.broker = HubBroker(self.hub)
        self.answers: dict[str, asyncio.Future[work_pb2.WorkReply]] = {}
        self._pull = PullServicer(self.hub)
        self._server = grpc.aio.server()

    async def start(self) -> None:
        fleet_grpc.add_FleetServiceServicer_to_server(self, self._server)
        repository_grpc.add_RepositoryServiceServicer_to_server(self, self._server)
        pull_grpc.add_PullServiceServicer_to_server(self._pull, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        await self.broker.start()
        await self.broker.consume(REPLIES, self._on_reply, prefetch=0)

    async def stop(self) -> None:
        await self._pull.end_streams()
        await self._server.stop(0)
        await self.broker.close()

    async def Attach(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[fleet_pb2.AttachResponse]:
        self.metadata.append(dict(context.invocation_metadata()))
        reader = asyncio.create_task(self._read(requests))
        try:
            yield fleet_pb2.AttachResponse(
                welcome=fleet_pb2.Welcome(router_instance="router-under-test")
            )
            while True:
                yield await self.orders.get()
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[fleet_pb2.AttachRequest]) -> None:
        async for request in requests:
            if request.HasField("advertisement"):
                self.advertisements.append(request.advertisement)
            else:
                self.reports.append(request.report)

    async def GetModelVersion(
        self, request: Any, context: Any
    ) -> repository_pb2.GetModelVersionResponse:
        return repository_pb2.GetModelVersionResponse(
            model_version=await self.repository.version(request.name)
        )

    async def DownloadArtifact(
        self, request: Any, context: Any
    ) -> AsyncIterator[repository_pb2.DownloadArtifactResponse]:
        async for piece in self.repository.download(request.name):
            yield repository_pb2.DownloadArtifactResponse(
                artifact=httpbody_pb2.HttpBody(data=piece)
            )

    def serve(self, version: repository_pb2.ModelVersion) -> str:
        """Orders the runtime to serve the version; returns the key."""
        key = serving_key(version.name, version.requires)
        order = fleet_pb2.Serve(key=key, model_version=version.name)
        self.orders.put_nowait(fleet_pb2.AttachResponse(serve=order))
        return key

    def stop_serving(self, key: str) -> None:
        """Orders the runtime to let the key go."""
        self.orders.put_nowait(
            fleet_pb2.AttachResponse(stop_serving=fleet_pb2.StopServing(key=key))
        )

    def states(self) -> dict[str, int]:
        """The last report's states by key."""
        return {model.key: model.state for model in self.reports[-1].models} if self.reports else {}

    async def ask(
        self, version: repository_pb2.ModelVersion, *items: work_pb2.WorkItem
    ) -> list[work_pb2.WorkReply]:
        """Sends the items and waits for their replies."""
        for item in items:
            self.answers[item.id] = asyncio.get_running_loop().create_future()
        body = work_pb2.WorkEnvelope(items=items).SerializeToString()
        queue = inference_queue(serving_key(version.name, version.requires)).name
        await self.broker.publish(queue, Message(body, reply_to=REPLIES.name))
        return await asyncio.wait_for(
            asyncio.gather(*(self.answers[item.id] for item in items)), 20
        )

    async def _on_reply(self, delivery: Delivery) -> None:
        for reply in work_pb2.WorkReplyEnvelope.FromString(delivery.message.body).replies:
            self.answers[reply.id].set_result(reply)
        delivery.ack()
