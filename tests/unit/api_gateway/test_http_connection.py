"""The life of a connection: what waits, what is dropped, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import time

from services.api_gateway.http.request import HttpRequest
from stellwerk.wire.errors import Cancelled
from tests.fakes.http_wire import Connection, turns

REQUEST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def echo(request: HttpRequest) -> None:
    body = await request.body(100, 1e12)
    await request.respond(200, b"content-length: %d\r\n" % len(body), body)


async def test_small_requests_that_wait_are_kept_as_bytes_and_reading_is_paused() -> None:
    go_on, served = asyncio.Event(), list[bytes]()

    async def wait(request: HttpRequest) -> None:
        await go_on.wait()
        served.append(request.head.raw_path)
        request.answer(200, b"content-length: 0\r\n", b"")

    connection = Connection(wait)
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(5000))

    await connection.send(many)
    parsed = len(connection.protocol._queue)
    paused = connection.wire.reading_paused
    go_on.set()
    while len(served) < 5000:
        await turns()
    await turns()

    assert paused and parsed < 1000
    assert served == [b"/%d" % number for number in range(5000)]
    assert not connection.wire.reading_paused


async def test_a_large_body_that_nobody_takes_pauses_reading() -> None:
    go_on, bodies = asyncio.Event(), list[bytes]()

    async def late(request: HttpRequest) -> None:
        await go_on.wait()
        bodies.append(await request.body(1 << 20, 1e12))
        request.answer(200, b"content-length: 0\r\n", b"")

    connection = Connection(late)
    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
    await connection.send(b"x" * 100_000)
    paused = connection.wire.reading_paused
    go_on.set()
    await turns()
    resumed = not connection.wire.reading_paused
    await connection.send(b"x" * 100_000)

    assert (paused, resumed, [len(body) for body in bodies]) == (True, True, [200_000])


async def test_bytes_that_are_no_request_are_refused_behind_the_answers_before_them() -> None:
    go_on = asyncio.Event()

    async def wait(request: HttpRequest) -> None:
        await go_on.wait()
        request.answer(200, b"content-length: 0\r\n", b"")

    connection = Connection(wait)
    await connection.send(REQUEST + REQUEST + b"rubbish\r\n\r\n" + REQUEST)
    before = connection.written
    go_on.set()
    await turns(20)

    assert before == b""
    assert connection.written.count(b"HTTP/1.1 200") == 2
    assert connection.written.index(b"HTTP/1.1 400") > connection.written.rindex(b"HTTP/1.1 200")
    assert connection.wire.closed


async def test_bytes_that_are_no_request_are_refused_behind_an_unwanted_body() -> None:
    connection = Connection(refuse)

    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nxx")
    await connection.send(b"xxxrubbish\r\n\r\n")

    assert connection.written.count(b"HTTP/1.1 401") == 1
    assert connection.written.count(b"HTTP/1.1 400") == 1
    assert connection.wire.closed


async def test_a_body_that_breaks_is_a_bad_request_and_ends_its_handler() -> None:
    ends = list[str]()

    async def read(request: HttpRequest) -> None:
        try:
            await request.body(100, 1e12)
        except Cancelled:
            ends.append("cancelled")

    connection = Connection(read)
    await connection.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nno"
    )
    await turns()

    assert ends == ["cancelled"]
    assert connection.written.startswith(b"HTTP/1.1 400") and connection.wire.closed


async def test_endless_trailers_are_cut_off() -> None:
    connection = Connection(echo)
    await connection.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    )
    for _ in range(10):
        if not connection.wire.closed:
            await connection.send(b"A: " + b"a" * 9000 + b"\r\n")

    assert connection.wire.closed
    assert connection.written.startswith(b"HTTP/1.1 400")


async def refuse(request: HttpRequest) -> None:
    request.answer(401, b"content-length: 0\r\n", b"")


async def test_an_unwanted_body_is_dropped_and_the_connection_goes_on() -> None:
    connection = Connection(refuse)

    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
    answered = connection.written
    await connection.send(b"x" * 200_000 + REQUEST)

    assert answered.startswith(b"HTTP/1.1 401") and b"connection: close" not in answered
    assert connection.written.count(b"HTTP/1.1 401") == 2
    assert not connection.wire.closed


async def test_an_unwanted_body_without_end_is_cut_off_by_bytes_and_by_time() -> None:
    for more in (b"x" * (2 << 20), b""):
        connection = Connection(refuse)
        await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        await connection.send(more)
        connection.connections.look(time.monotonic() + 14)
        early = connection.wire.closed
        connection.connections.look(time.monotonic() + 16)

        assert (early, connection.wire.closed) == (bool(more), True)


async def test_leave_to_send_is_given_if_the_body_is_wanted_else_the_connection_ends() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    asked, refused = Connection(echo), Connection(refuse)

    await asked.send(head)
    leave = asked.written
    await asked.send(b"hi")
    await refused.send(head)

    assert leave == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert asked.written.endswith(b"hi") and not asked.wire.closed
    assert b"connection: close" in refused.written and refused.wire.closed


async def test_connections_that_are_idle_or_late_with_a_head_are_closed_by_the_look() -> None:
    idle, late, busy = Connection(echo), Connection(echo), Connection(stay)
    await idle.send(REQUEST)
    await late.send(REQUEST + b"GET / HTTP/1.1\r\nHo")
    await busy.send(REQUEST)
    closed = []
    for seconds in (10, 22, 74, 78):
        for connection in (idle, late, busy):
            connection.connections.look(time.monotonic() + seconds)
        closed.append((idle.wire.closed, late.wire.closed, busy.wire.closed))
    await busy.lose()

    assert closed == [
        (False, False, False),
        (False, True, False),
        (False, True, False),
        (True, True, False),
    ]


async def test_a_client_that_never_reads_its_last_response_is_cut_off() -> None:
    connection = Connection(echo)
    await connection.send(REQUEST.replace(b"Host", b"Connection: close\r\nHost"))
    aborted = []
    for seconds in (250, 310):
        connection.connections.look(time.monotonic() + seconds)
        aborted.append(connection.wire.aborted)

    assert connection.wire.closed
    assert aborted == [False, True]


async def stay(request: HttpRequest) -> None:
    request.watch()
    await asyncio.Event().wait()


async def test_a_server_that_stops_closes_idle_connections_and_finishes_the_others() -> None:
    go_on = asyncio.Event()

    async def wait(request: HttpRequest) -> None:
        await go_on.wait()
        request.answer(200, b"content-length: 0\r\n", b"")

    idle, busy = Connection(echo), Connection(wait)
    busy.protocol.connections = busy.connections = idle.connections
    idle.connections.open.add(busy.protocol)
    await idle.send(REQUEST)
    await busy.send(REQUEST)

    stopping = asyncio.create_task(idle.connections.stop(5.0))
    await turns()
    early = (idle.wire.closed, busy.wire.closed)
    go_on.set()
    await turns()
    closed = busy.wire.closed
    await idle.lose()
    await busy.lose()
    await stopping

    assert (early, closed) == ((True, False), True)
    assert b"connection: close" in busy.written


async def test_what_outlasts_the_stop_is_cancelled() -> None:
    connection = Connection(stay)
    await connection.send(REQUEST)

    await connection.connections.stop(0.01)

    assert connection.wire.closed
    assert not connection.written


async def test_a_stream_is_chunked_or_to_http_1_0_ended_by_closing() -> None:
    async def stream(request: HttpRequest) -> None:
        await request.begin(200, b"")
        for part in (b"one", b"", b"two"):
            await request.send(part)
        request.end()

    new, old = Connection(stream), Connection(stream)
    await new.send(REQUEST)
    await old.send(b"GET / HTTP/1.0\r\n\r\n")

    assert new.written == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    )
    assert not new.wire.closed
    assert old.written == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"
    assert old.wire.closed


async def test_a_reader_that_is_slow_makes_its_answer_wait() -> None:
    connection = Connection(echo)
    connection.protocol.pause_writing()
    await connection.send(REQUEST)
    before = connection.written
    connection.protocol.resume_writing()
    await turns()

    assert (before, connection.written[-2:]) == (b"", b"hi")


async def test_what_follows_a_request_that_ends_its_connection_is_nobodys() -> None:
    connection = Connection(echo)
    await connection.send(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + REQUEST + b"\x00rubbish"
    )
    await connection.send(b"more rubbish\r\n\r\n")

    assert connection.written.count(b"HTTP/1.1") == 1
    assert connection.wire.closed
