"""Serves FleetService: one stream per attached runtime. The stream is the attachment; when it ends,
the runtime is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import structlog

from services.router.fleet.reconciler import Outgoing, Reconciler
from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.wire.errors import InvalidInput, Unavailable
from stellwerk.wire.names import parse_single


class FleetServicer:
    """Takes in advertisements and reports of runtimes, and sends them orders."""

    def __init__(
        self, reconciler: Reconciler, instance: str, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._reconciler = reconciler
        self._instance = instance
        self._log = log

    async def Attach(
        self, requests: AsyncIterator[messages.AttachRequest], _: Any
    ) -> AsyncGenerator[messages.AttachResponse]:
        """Takes in one runtime until its stream ends; yields its welcome, then its orders."""
        first = await anext(requests, None)
        if first is None or not first.HasField("advertisement") or not first.advertisement.instance:
            raise InvalidInput(
                "the first message of a runtime must be its advertisement, with its instance"
            )
        parse_single(first.advertisement.name, "runtimes", "runtime")
        instance = first.advertisement.instance
        outgoing: Outgoing = asyncio.Queue()
        self._take(instance, first)
        self._reconciler.attach(instance, outgoing)
        self._log.info(
            "runtime_attached", runtime=first.advertisement.name, instance_attached=instance
        )
        reader = asyncio.create_task(self._read(instance, requests))
        reader.add_done_callback(lambda _: outgoing.put_nowait(None))
        try:
            yield messages.AttachResponse(welcome=messages.Welcome(router_instance=self._instance))
            while True:
                order = await outgoing.get()
                if order is not None:
                    yield order
                elif reader.done():
                    await reader  # raises what ended it
                    return
                else:
                    raise Unavailable("the router let this runtime go; attach again")
        finally:
            reader.cancel()
            self._reconciler.detach(instance, outgoing)
            self._log.info(
                "runtime_detached", runtime=first.advertisement.name, instance_attached=instance
            )

    async def _read(self, instance: str, requests: AsyncIterator[messages.AttachRequest]) -> None:
        async for message in requests:
            self._take(instance, message)
            self._reconciler.reconcile()

    def _take(self, instance: str, message: messages.AttachRequest) -> None:
        now = time.monotonic()
        if message.HasField("advertisement"):
            if message.advertisement.instance != instance:
                raise InvalidInput("a runtime's instance does not change within a stream")
            self._reconciler.registry.advertise(message.advertisement, now)
        elif message.HasField("report"):
            self._reconciler.registry.report(instance, message.report, now)
