"""The fast way: which requests take it, in which order they are answered; nobody can tell."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from tests.fakes.http_wire import Connection, turns
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


async def test_a_head_that_the_parser_has_accepted_takes_the_fast_way() -> None:
    door = Door(fast=True)
    first, second = door.connect(), door.connect()

    await first.send(request_of(b"one"))
    slow = len(door.taken)
    await first.send(request_of(b"two"))
    await second.send(request_of(b"six"))

    assert (slow, len(door.taken)) == (0, 2)
    assert second.written.endswith(b"\r\n\r\nsix")
    assert (first.heads.hits, first.heads.misses) == (2, 1)


@pytest.mark.parametrize("id", [b"X-Request-Id: %d", b"x-request-id: a-%d", b"X-Id: %d"])
async def test_request_ids_may_differ_and_stay_their_own(id: bytes) -> None:
    door = Door(fast=True)
    connection = door.connect()

    for number in range(4):
        await connection.send(request_of(b"one", id % number))

    kept = id.lower().startswith(b"x-request-id")
    ids = [(id % number).split(b": ")[1].decode() for number in range(4)] if kept else []
    assert door.taken == ids[1:]
    assert all(f"x-request-id: {id}\r\n".encode() in connection.written for id in ids)


async def test_traceparents_may_differ_beside_request_ids() -> None:
    door = Door(fast=True)
    connection = door.connect()
    for number in range(3):
        parent = b"00-%032x-%016x-01" % (number, number)
        await connection.send(
            request_of(b"one", b"traceparent: " + parent, b"X-Request-Id: r%d" % number)
        )

    assert [line["trace_id"] for line in door.lines()] == [f"{number:032x}" for number in range(3)]
    assert door.taken == ["r1", "r2"]


async def test_clients_that_say_keep_alive_take_the_fast_way() -> None:
    door = Door(fast=True)
    connection = door.connect()
    for _ in range(2):
        await connection.send(request_of(b"one", b"Connection: Keep-Alive"))

    assert len(door.taken) == 1


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: close"],
        [b"Connection: keep-alive, x-one"],
        [b"Expect: 100-continue"],
        [b"Upgrade: h2c", b"Connection: Upgrade"],
        [b"Content-Encoding: identity"],
        [b"Origin: https://a.example"],
        [b"X-Request-Id: a", b"X-Request-Id: b"],
        [b"X-Request-Id: a b"],
        [b"X-Request-Id:  a"],
        [b"X-Twice: 1", b"X-Twice: 2"],
        [b"tracestate: a=b"],
        [b"Host: y"],
        [b"X-Request-Timeout: none"],
        [b"Content-Length: 3"],
        [b"X-Long: " + b"x" * 4000],
    ],
)
async def test_heads_of_a_kind_go_the_slow_way_each_time(lines: list[bytes]) -> None:
    door = Door(fast=True)
    connection = door.connect()

    for _ in range(3):
        if not connection.wire.closed:
            await connection.send(request_of(b"one", *lines))

    assert connection.written.startswith(b"HTTP/1.1 ")
    assert not door.taken


async def test_other_methods_targets_keys_and_framings_go_the_slow_way() -> None:
    door = Door(fast=True)
    requests = [
        request_of(b"one", path=b"m/infer?x=1"),
        request_of(b"one", method=b"PUT"),
        request_of(b""),
        request_of(b"one").replace(b"Bearer good", b"Bearer swk_1"),
        request_of(b"one").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request_of(b"3\r\none\r\n0\r\n\r\n").replace(
            b"Content-Length: 13", b"Transfer-Encoding: chunked"
        ),
    ]

    for request in requests * 2:
        await door.connect().send(request)

    assert not door.taken


async def test_a_head_without_its_body_waits_for_it_until_the_next_look() -> None:
    door = Door(fast=True)
    connection = door.connect()
    request = request_of(b"one and two")
    await connection.send(request)

    await connection.send(request[:-4])
    await connection.send(request[-4:])
    taken = len(door.taken)
    await connection.send(request[:-4])
    tasks = len(connection.connections.tasks)
    connection.connections.look(time.monotonic())
    await turns()
    served = len(connection.connections.tasks)
    await connection.send(request[-4:])

    assert (taken, tasks, served, len(door.taken)) == (1, 0, 1, 1)
    assert connection.written.count(b"one and two") == 3


async def test_what_follows_a_request_on_the_fast_way_waits_for_its_answer() -> None:
    door = Door(fast=True)
    connection = door.connect()
    await connection.send(request_of(b"one"))
    door.holds = True
    await connection.send(request_of(b"two"))
    door.holds = False
    await connection.send(request_of(b"six") + request_of(b"eleven"))
    before = connection.written.count(b"HTTP/1.1")

    door.go_on()
    await turns(20)

    assert (before, len(door.taken)) == (1, 1)
    bodies = [connection.written.index(body) for body in (b"one", b"two", b"six", b"eleven")]
    assert bodies == sorted(bodies)


async def test_a_client_that_leaves_is_recorded_and_its_late_answer_goes_nowhere() -> None:
    door = Door(fast=True)
    connection = door.connect()
    await connection.send(request_of(b"one"))
    door.holds = True
    await connection.send(request_of(b"two"))
    written = connection.written

    await connection.lose()
    door.go_on()

    assert [line["status"] for line in door.lines()] == [200, 499]
    assert connection.written == written


async def test_a_server_that_stops_waits_for_the_fast_way_and_then_closes() -> None:
    door = Door(fast=True)
    connection = door.connect()
    await connection.send(request_of(b"one"))
    door.holds = True
    await connection.send(request_of(b"two"))

    stopping = asyncio.create_task(connection.connections.stop(5.0))
    await turns()
    early = connection.wire.closed
    door.go_on()
    closed = connection.wire.closed
    await connection.lose()
    await stopping

    assert (early, closed) == (False, True)
    assert b"connection: close" in connection.written


async def test_a_slow_reader_goes_the_slow_way() -> None:
    door = Door(fast=True)
    connection = door.connect()
    await connection.send(request_of(b"one"))

    connection.protocol.pause_writing()
    await connection.send(request_of(b"two"))
    connection.protocol.resume_writing()
    await turns()

    assert not door.taken
    assert connection.written.endswith(b"two")


BODIES = st.sampled_from([b"", b"one", b"bad", b"x" * 300])
LINES = st.lists(
    st.sampled_from(
        [
            b"X-Request-Id: %(id)d",
            b"x-request-id: ?",
            b"traceparent: 00-%(id)032x-%(id)016x-01",
            b"Accept-Encoding: gzip",
            b"Content-Encoding: gzip",
            b"X-Request-Timeout: 5",
            b"X-Request-Timeout: 0",
            b"Content-Type: application/json",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
        ]
    ),
    max_size=3,
)
REQUESTS = st.builds(
    lambda body, lines, method, path, id: request_of(
        body, *(line % {b"id": id} if b"%" in line else line for line in lines),
        method=method, path=path,
    ),
    BODIES,
    LINES,
    st.sampled_from([b"POST", b"POST", b"POST", b"GET"]),
    st.sampled_from([b"m", b"m", b"m/versions/1", b"nothing/here"]),
    st.integers(1, 5),
)  # fmt: skip


async def answers(door: Door, reads: list[bytes], id: bytes) -> bytes:
    """Returns the bytes of a connection; ids that the gateway chose are replaced by `id`."""
    connection = door.connect()
    for data in reads:
        if not connection.wire.closed:
            await connection.send(data)
    connection.connections.look(time.monotonic())
    await turns(20)
    written = connection.written
    await connection.lose()
    return re.sub(rb"x-request-id: [0-9a-f]{32}\r\n", b"x-request-id: " + id, written)


@settings(max_examples=100, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=6), st.integers(10, 2000))
async def test_the_fast_way_answers_byte_by_byte_as_the_slow_way(
    requests: list[bytes], size: int
) -> None:
    # Each list twice, so that its heads are known the second time; once in pieces of any size.
    data = b"".join(requests)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    fast, slow = Door(fast=True), Door(fast=False)

    for reads in (requests, requests, pieces):
        assert await answers(fast, reads, b"own") == await answers(slow, reads, b"own")

    def without_ids(door: Door) -> list[dict[str, Any]]:
        lines = door.lines()
        for line in lines:
            if len(line["request_id"]) == 32:
                line["request_id"] = "own"
            if line["reason"] == "UNSUPPORTED_ENCODING":
                # Refused before its body was read, of which some or all had arrived.
                del line["bytes_in"]
        return lines

    assert without_ids(fast) == without_ids(slow)
    assert not slow.taken
