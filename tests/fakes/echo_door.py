"""An HTTP door whose infer route echoes, by a task and by the fast way, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.access_log import AccessLog
from services.api_gateway.http.door import HttpDoor
from services.api_gateway.http.exchange import HttpExchange, begin_exchange
from services.api_gateway.http.heads import KnownHeads
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.response import HttpResponse
from services.api_gateway.http.status import status_body
from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import RouteTable, routes_of
from services.chassis.context import Principal
from services.chassis.telemetry import Tracing
from stellwerk.wire.errors import Cancelled, InvalidInput, ServiceError, Unauthenticated
from tests.fakes.http_wire import Connection
from tests.fakes.log import FakeLog

INFER = "/inference.GRPCInferenceService/ModelInfer"
GOOD = "Bearer good"
TABLE = RouteTable(routes_of(exposed_services.SERVED_BY))
SETTINGS = GatewaySettings(compress_from_bytes=64)


class Door:
    """A door whose infer route echoes, by a task and by the fast way, and what it recorded."""

    def __init__(self, *, fast: bool) -> None:
        self.log = FakeLog()
        self.taken: list[str] = []
        self.waiting: list[Callable[[], None]] = []
        self.holds = False
        log: Any = self.log
        self.access_log = AccessLog(
            CollectorRegistry(), log, lambda record: None, Tracing("g", "1", "")
        )
        self.door = HttpDoor(
            table=TABLE,
            handlers=dict.fromkeys(TABLE.routes, self._handle),
            documents={},
            authenticate=self._authenticate,
            write_error=lambda path, error: status_body(error),
            begin_span=None,
            access_log=self.access_log,
            settings=SETTINGS,
            log=log,
        )
        self._fast_way = self._fast if fast else None
        self._heads = KnownHeads()

    def connect(self) -> Connection:
        return Connection(self.door, self._fast_way, self._heads)

    def lines(self) -> list[dict[str, Any]]:
        """The fields of the lines logged so far, but for those that differ from run to run."""
        self.access_log.flush()
        varying = ("ms", "timestamp")
        return [
            {name: value for name, value in fields.items() if name not in varying}
            for _, fields in self.log.lines
        ]

    async def _authenticate(self, value: str) -> tuple[str, Principal]:
        if value != GOOD:
            raise Unauthenticated("who are you")
        return "good", Principal("principals/ada")

    async def _handle(self, exchange: HttpExchange) -> HttpResponse:
        body = await exchange.body()
        if self.holds:
            await asyncio.Event().wait()
        outcome = _outcome(body)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    def _fast(self, request: HttpRequest, body: bytes) -> bool:
        if request.head.headers.get(b"authorization") != GOOD.encode():
            return False
        exchange = begin_exchange(request, SETTINGS)
        try:
            route = self.door.enter(exchange)
        except ServiceError:
            return False
        if route.rpc_name != INFER:
            return False
        exchange.call.token = "good"
        exchange.call.principal = Principal("principals/ada")
        self.taken.append(exchange.call.request_id)

        def finish() -> None:
            self.door.finish(exchange, _outcome(body))

        def gone() -> None:
            self.waiting.remove(finish)
            self.door.finish(exchange, Cancelled("the caller went away"))

        request.on_gone = gone
        self.waiting.append(finish)
        if not self.holds:
            asyncio.get_running_loop().call_soon(self.go_on)
        return True

    def go_on(self) -> None:
        """Answers what waits on the fast way."""
        waiting = self.waiting
        self.waiting = []
        for finish in waiting:
            finish()


def _outcome(body: bytes) -> HttpResponse | ServiceError:
    return InvalidInput("it is bad") if body.startswith(b"bad") else HttpResponse(200, body)


def request_of(body: bytes, *lines: bytes, method: bytes = b"POST", path: bytes = b"m") -> bytes:
    fields = [b"Host: x", b"Authorization: Bearer good", *lines, b"Content-Length: %d" % len(body)]
    head = b"%b /v2/models/%b/infer HTTP/1.1\r\n" % (method, path)
    return head + b"\r\n".join(fields) + b"\r\n\r\n" + body
