"""The three servers without sockets: each takes a stream's reads and tells what it made of them."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import h11
import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.api_gateway.http.connections import Connections, Limits
from services.api_gateway.http.heads import MAX_HEADERS, KnownHeads
from services.api_gateway.http.protocol import HttpConnection
from services.api_gateway.http.request import HttpRequest
from soak.http_streams.outcomes import IDS, Outcome, Seen, joined
from stellwerk.wire.errors import ServiceError, UnsupportedEncoding

MAX_HEAD_BYTES = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})")
_ANSWER = b"content-length: 2\r\n"
_BODY_LIMIT = 1 << 64


def statuses_of(written: bytes) -> list[int]:
    """Returns the final statuses of the responses in some bytes."""
    return [int(status) for status in _STATUS.findall(written)]


class _Wire(asyncio.Transport):
    """A transport that keeps what is written before it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def statuses(self) -> list[int]:
        return statuses_of(b"".join(self.written))


class Application:
    """An application behind the gateway's server; refuses what the door refuses."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        # The request that was refused last.
        self.refused: HttpRequest | None = None

    async def serve(self, request: HttpRequest) -> None:
        """Answers a request in a task."""
        head = request.head
        refused = head.malformed
        if head.header_count > MAX_HEADERS:
            refused = "the request has more headers than may be"
        if refused:
            await self._refuse(request, refused)
            return
        try:
            body = await request.body(_BODY_LIMIT, 1e18)
        except UnsupportedEncoding:
            await self._refuse(request, "a coding that is not known")
            return
        except ServiceError:
            return
        self.seen.append(_own(request, body))
        await request.respond(200, _ANSWER, b"" if head.method == "HEAD" else b"ok")

    async def _refuse(self, request: HttpRequest, why: str) -> None:
        await request.respond(400, _ANSWER, b"no")
        # A request whose body breaks in the same read has the parser's refusal already.
        if request.ended:
            self.seen.append(_own(request, b"", why))
            self.refused = request

    def fast(self, request: HttpRequest, body: bytes) -> bool:
        """Answers a request at once."""
        self.seen.append(_own(request, body))
        request.answer(200, _ANSWER, b"ok")
        return True


class Own:
    """The gateway's server."""

    def __init__(self, heads: KnownHeads, *, fast: bool) -> None:
        self._application = Application()
        self._wire = _Wire()
        self._late: list[bytes] = []
        self.connections = Connections()
        limits = Limits(MAX_HEAD_BYTES, 1e9, 1 << 30)
        self._protocol = HttpConnection(
            self.connections,
            heads,
            limits,
            self._application.serve,
            self._application.fast if fast else None,
        )
        self._protocol.connection_made(self._wire)

    def feed(self, data: bytes) -> None:
        # A transport whose reading is paused delivers nothing more.
        if self._wire.paused or self._late:
            self._late.append(data)
        elif not self._wire.closed:
            self._protocol.data_received(data)

    def catch_up(self) -> None:
        """Delivers what waited while reading was paused."""
        while self._late and not self._wire.paused:
            data = self._late.pop(0)
            if not self._wire.closed:
                self._protocol.data_received(data)

    @property
    def is_behind(self) -> bool:
        """Returns whether bytes still wait to be delivered."""
        return bool(self._late) and not self._wire.closed

    def look(self) -> None:
        """Lets time pass, so that what waits for the rest of its body goes on."""
        self.connections.look(time.monotonic())

    def outcome(self) -> Outcome:
        closed, paused = self._wire.closed, self._wire.paused
        seen, refused = self._application.seen, self._application.refused
        unfinished = closed and refused is not None and not refused.arrived
        waits = unfinished and refused is not None and refused.waits_for_leave
        if unfinished and not waits:
            # Its body is broken. In one read with it, the head had been no request either.
            seen.pop()
        hangs = "reading is paused for ever" if paused and not closed else ""
        found = Outcome(seen, self._wire.statuses(), closed, waits=waits, hangs=hangs)
        self._protocol.connection_lost(None)
        return found


def _own(request: HttpRequest, body: bytes, refused: str = "") -> Seen:
    head = request.head
    fields = dict(head.headers)
    for name, value in zip(IDS, (request.request_id, request.traceparent), strict=True):
        if value:
            fields[name] = value
    if request.api_key:
        fields[b"authorization"] = b"Bearer " + request.api_key
    version = head.version
    return Seen(head.method, head.raw_path, head.query, version, fields, body, refused=refused)


class Uvicorn:
    """uvicorn's own protocol on httptools."""

    _config: uvicorn.Config | None = None

    def __init__(self) -> None:
        if Uvicorn._config is None:
            Uvicorn._config = uvicorn.Config(
                _nothing, lifespan="off", log_config=None, ws="none", timeout_keep_alive=100_000
            )
            Uvicorn._config.load()
        self._seen: list[Seen] = []
        self._wire = _Wire()
        loop = asyncio.get_running_loop()
        self._protocol = HttpToolsProtocol(Uvicorn._config, ServerState(), {}, loop)
        self._protocol.app = self._app  # type: ignore[assignment]
        self._protocol.connection_made(self._wire)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        lines = tuple(scope["headers"])
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        version = scope["http_version"]
        path, query = scope["raw_path"], scope["query_string"]
        self._seen.append(Seen(scope["method"], path, query, version, joined(lines), body, lines))
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    def feed(self, data: bytes) -> None:
        if not self._wire.closed:
            self._protocol.data_received(data)

    def outcome(self) -> Outcome:
        found = Outcome(self._seen, self._wire.statuses(), self._wire.closed)
        self._protocol.connection_lost(None)
        return found


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    return None


class H11:
    """h11, with a loop around it as small as can be."""

    def __init__(self) -> None:
        self._connection = h11.Connection(
            h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES + 1024
        )
        self._found = Outcome()
        self._request: h11.Request | None = None
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> None:
        found = self._found
        if found.closed:
            return
        try:
            # The library takes no bytes for the end of the connection.
            if data:
                self._connection.receive_data(data)
            self._events()
        except h11.RemoteProtocolError as exc:
            found.reason = str(exc)
            found.statuses.append(exc.error_status_hint)
            found.closed = True

    def _events(self) -> None:
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return
            if event is h11.PAUSED:
                self._found.closed = True
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body = []
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._answer()

    def _answer(self) -> None:
        request = self._request
        assert request is not None
        path, query = _split(request.target)
        lines = tuple((bytes(name), bytes(value)) for name, value in request.headers)
        method, version = request.method.decode("latin-1"), request.http_version.decode()
        body = b"".join(self._body)
        self._found.seen.append(Seen(method, path, query, version, joined(lines), body, lines))
        connection = self._connection
        # With 200 the library would take what follows CONNECT for another protocol.
        status = 405 if method == "CONNECT" else 200
        connection.send(h11.Response(status_code=status, headers=[("content-length", "2")]))
        connection.send(h11.Data(data=b"" if method == "HEAD" else b"ok"))
        connection.send(h11.EndOfMessage())
        self._found.statuses.append(status)
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
        elif connection.our_state is h11.MUST_CLOSE:
            self._found.closed = True

    def outcome(self) -> Outcome:
        return self._found


def _split(target: bytes) -> tuple[bytes, bytes]:
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target, b""
    return url.path or b"", url.query or b""
