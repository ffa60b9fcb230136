"""The runtime's side of the fleet stream: says what it has and does, does what the router asks,
always comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from services.chassis import background
from stellwerk.router.v1 import fleet_service_pb2 as fleet_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import ServiceError, Unavailable

REPORT_SECONDS = 2.0
# Seconds between two attempts to attach, at most: a router that restarts is found again soon after.
_LONGEST_PAUSE = 1.5

Open = Callable[[AsyncIterator[fleet_pb2.AttachRequest]], Awaitable[Any]]


class Serving(Protocol):
    """What the router's wishes are given to."""

    @property
    def draining(self) -> bool: ...
    def models(self) -> list[router_pb2.ServedModel]: ...
    def serve(self, key: str, model_version: str) -> None: ...
    async def stop(self, key: str) -> None: ...


class Attachment:
    """One stream at a time, for ever."""

    def __init__(
        self,
        *,
        open_stream: Open,
        advertise: Callable[[], Awaitable[router_pb2.Runtime]],
        serving: Serving,
        in_flight: Callable[[], int],
        log: Any,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._open = open_stream
        self._advertise = advertise
        self._serving = serving
        self._in_flight = in_flight
        self._log = log
        self._report_seconds = report_seconds
        self._news = asyncio.Event()
        self.problem = "the runtime has not attached to a router yet"

    def changed(self) -> None:
        """Reports at once."""
        self._news.set()

    async def run(self) -> None:
        """Attaches, and attaches again whenever the stream ends."""
        await background.run_forever(
            self._session, self._lost, expected=ServiceError, longest_seconds=_LONGEST_PAUSE
        )

    def report(self) -> fleet_pb2.Report:
        """What the runtime does now."""
        return fleet_pb2.Report(
            models=self._serving.models(),
            in_flight=self._in_flight(),
            draining=self._serving.draining,
        )

    def _lost(self, error: Exception, repeats: bool) -> None:
        if not self.problem:
            self._log.warning("detached", why=str(error))
        self.problem = f"the runtime is not attached to a router: {error}"

    async def _session(self, succeeded: Callable[[], None]) -> None:
        """Attaches until the stream ends. Raises the ServiceError it ends with."""
        advertisement = await self._advertise()
        stream = await self._open(self._requests(advertisement))
        try:
            async for response in stream:
                if response.HasField("welcome"):
                    succeeded()
                await self._obey(response)
        finally:
            stream.cancel()
        raise Unavailable("the router ended the stream")

    async def _requests(
        self, advertisement: router_pb2.Runtime
    ) -> AsyncIterator[fleet_pb2.AttachRequest]:
        yield fleet_pb2.AttachRequest(advertisement=advertisement)
        while True:
            # The first report follows at once: a router that restarted learns what is served here
            # already.
            self._news.clear()
            yield fleet_pb2.AttachRequest(report=self.report())
            try:
                async with asyncio.timeout(self._report_seconds):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _obey(self, response: fleet_pb2.AttachResponse) -> None:
        wish = response.WhichOneof("message")
        if wish == "welcome":
            self.problem = ""
            self._log.info("attached", router=response.welcome.router_instance)
        elif wish == "serve":
            self._serving.serve(response.serve.key, response.serve.model_version)
        elif wish == "stop_serving":
            await self._serving.stop(response.stop_serving.key)
