"""Serves CallService: a stream for each gateway, with its callers' calls and their answers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.chassis.access.token_verifier import TokenVerifier
from services.router.calls.call_log import CallLog
from services.router.calls.gateway_stream import STOPPING, GatewayStream
from services.router.calls.invocations import Invocations
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import Unavailable


class ExchangeServicer:
    """Serves the streams of all gateways."""

    def __init__(
        self, invocations: Invocations, verifier: TokenVerifier, call_log: CallLog, log: Any
    ) -> None:
        self._open = functools.partial(GatewayStream, invocations, verifier, call_log, log)
        self._streams: set[GatewayStream] = set()
        self._empty = asyncio.Event()
        self._draining = False

    async def Exchange(
        self, requests: AsyncIterator[messages.ExchangeRequest], context: Any
    ) -> None:
        """Writes frames of answers, serialised."""
        if self._draining:
            raise Unavailable(STOPPING)
        stream = self._open()
        self._streams.add(stream)
        # Tasks of their own: a frame that wakes one passes nothing else on its way.
        both = [
            asyncio.create_task(stream.read(requests)),
            asyncio.create_task(stream.write(context.write)),
        ]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()  # raises the error that ended it
        finally:
            for task in both:
                task.cancel()
            stream.close()
            self._streams.discard(stream)
            if not self._streams:
                self._empty.set()

    async def drain(self) -> None:
        """Takes no more calls; returns when all there are have been answered."""
        self._draining = True
        for stream in self._streams:
            stream.drain()
        if self._streams:
            await self._empty.wait()


def add_to_server(servicer: ExchangeServicer, server: grpc.aio.Server) -> None:
    """Adds the servicer as protoc's function does, but for answers that are serialised already."""
    handler: Any = grpc.stream_stream_rpc_method_handler(
        servicer.Exchange, request_deserializer=messages.ExchangeRequest.FromString
    )
    service = messages.DESCRIPTOR.services_by_name["CallService"].full_name
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Exchange": handler}),)
    )
