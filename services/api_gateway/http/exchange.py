"""A request on its way through the HTTP door, and what the door's handlers are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.request import Request
from services.api_gateway.http.response import Answer, Stream
from services.api_gateway.routing.routes import Match
from services.chassis.context import CallContext
from stellwerk.wire.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a request may bring, and how long it may take."""

    max_body_bytes: int
    default_deadline_seconds: float
    max_deadline_seconds: float
    max_stream_seconds: float

    @classmethod
    def of(cls, settings: GatewaySettings) -> Limits:
        """The limits that the settings give."""
        return cls(
            max_body_bytes=settings.max_body_bytes,
            default_deadline_seconds=settings.default_deadline_seconds,
            max_deadline_seconds=settings.max_deadline_seconds,
            max_stream_seconds=settings.max_stream_seconds,
        )


@dataclass(slots=True)
class Visit:
    """A request whose route is known and whose sender was let in."""

    request: Request
    match: Match
    call: CallContext
    limits: Limits

    async def body(self) -> bytes:
        """The request's whole body, within the limits; afterwards the caller's going away cancels
        the task.
        """
        deadline = self.call.deadline
        assert deadline is not None
        body = await self.request.body(self.limits.max_body_bytes, deadline)
        self.request.watch()
        return body


@dataclass(slots=True)
class Passage:
    """What is known so far of one request: all that its log line needs."""

    request: Request
    call: CallContext
    # What the log and the metrics call it: a template or a document's path, never what was asked
    # for.
    route: str = "(none)"
    # Asked for by anyone at any time, such as health: not worth a line when it goes well.
    quiet: bool = False
    span: Any = None
    error: ServiceError | None = None
    # 0 until a response has begun.
    status: int = 0
    bytes_sent: int = 0


Handler = Callable[[Visit], Awaitable[Answer | Stream]]
