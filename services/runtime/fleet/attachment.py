"""Keeps one stream to a router open: advertises and reports, follows the router's instructions, and
attaches again whenever the stream ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from services.chassis import background
from stellwerk.router.v1 import fleet_service_pb2 as fleet_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import ServiceError, Unavailable

# Seconds between two reports; a router takes a runtime for stale after four of them by default.
REPORT_SECONDS = 2.0
# Seconds between two attempts to attach, at most: a restarted router gets its runtimes back soon.
_LONGEST_PAUSE = 1.5

OpenStream = Callable[[AsyncIterator[fleet_pb2.AttachRequest]], Awaitable[Any]]


class Description(Protocol):
    """The part of RuntimeDescription that is sent to the router."""

    async def describe(self) -> router_pb2.Runtime: ...
    def report(self) -> fleet_pb2.Report: ...


class Instructions(Protocol):
    """The part of ServingTable that the router's instructions go to."""

    def serve(self, key: str, model_version: str) -> None: ...
    async def stop(self, key: str) -> None: ...


class Attachment:
    """A stream to a router, opened again whenever it ends."""

    def __init__(
        self,
        open_stream: OpenStream,
        description: Description,
        serving: Instructions,
        *,
        log: Any,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._open = open_stream
        self._description = description
        self._serving = serving
        self._log = log
        self._report_seconds = report_seconds
        self._news = asyncio.Event()
        # The reason why the runtime is not attached; "" while it is.
        self.problem = "the runtime has not attached to a router yet"

    def changed(self) -> None:
        """Sends a report at once."""
        self._news.set()

    async def run(self) -> None:
        """Attaches again and again, until cancelled."""
        await background.run_forever(
            self._session, self._lost, expected=ServiceError, longest_seconds=_LONGEST_PAUSE
        )

    def _lost(self, error: Exception, repeats: bool) -> None:
        if not self.problem:
            self._log.warning("detached", why=str(error))
        self.problem = f"the runtime is not attached to a router: {error}"

    async def _session(self, succeeded: Callable[[], None]) -> None:
        """Attaches until the stream ends. Raises the ServiceError it ends with."""
        advertisement = await self._description.describe()
        with await self._open(self._requests(advertisement)) as stream:
            async for response in stream:
                if response.HasField("welcome"):
                    succeeded()
                await self._follow(response)
        raise Unavailable("the router ended the stream")

    async def _requests(
        self, advertisement: router_pb2.Runtime
    ) -> AsyncIterator[fleet_pb2.AttachRequest]:
        yield fleet_pb2.AttachRequest(advertisement=advertisement)
        while True:
            # The first report follows at once: a restarted router must learn what is served here.
            self._news.clear()
            yield fleet_pb2.AttachRequest(report=self._description.report())
            try:
                async with asyncio.timeout(self._report_seconds):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _follow(self, response: fleet_pb2.AttachResponse) -> None:
        instruction = response.WhichOneof("message")
        if instruction == "welcome":
            self.problem = ""
            self._log.info("attached", router=response.welcome.router_instance)
        elif instruction == "serve":
            self._serving.serve(response.serve.key, response.serve.model_version)
        elif instruction == "stop_serving":
            await self._serving.stop(response.stop_serving.key)
