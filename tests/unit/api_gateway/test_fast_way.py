"""The fast way: which requests take it, in which order they are answered; nobody can tell."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.echo_door import Door, request_of
from tests.fakes.eventually import eventually
from tests.fakes.http_wire import Connection, turns


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


@pytest.mark.parametrize("lines", [[], [b"X-Request-Id: r-1"]])
async def test_an_api_key_is_kept_with_no_head(lines: list[bytes]) -> None:
    connection = Door(fast=True).connect()
    keys = [b"swk_%b_%b" % (letter * 16, letter * 43) for letter in (b"a", b"b")]
    mine, other = (
        request_of(b"one", *lines).replace(b"Bearer good", b"Bearer " + key) for key in keys
    )
    await connection.send(mine)

    found = [connection.heads.find(request) for request in (mine, other)]

    assert None not in found
    (known, (_, cuts)), (same, (_, others)) = found  # type: ignore[misc]
    assert known is same
    assert (cuts[2], others[2]) == tuple(keys)
    assert b"authorization" not in known.head.headers


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


LARGE, SMALL, GZIP = b"7" * 100_000, b"8" * 100, b"Accept-Encoding: gzip"


async def with_waiting(body: bytes) -> tuple[Door, Connection]:
    """A connection whose request for this answer waits on the fast way until `go_on`."""
    door = Door(fast=True)
    connection = door.connect()
    # The first head of its kind goes the slow way.
    await connection.send(request_of(body, GZIP))
    await eventually(lambda: b"HTTP/1.1 200" in connection.written)
    connection.wire.writes.clear()
    door.holds = True
    await connection.send(request_of(body, GZIP))
    return door, connection


@pytest.mark.parametrize(("body", "at_once"), [(LARGE, False), (SMALL, True)])
async def test_a_large_answer_is_compressed_beside_the_event_loop(
    body: bytes, at_once: bool
) -> None:
    door, connection = await with_waiting(body)

    door.go_on()
    written = bool(connection.written)
    await eventually(lambda: bool(connection.written))

    assert (len(door.taken), written) == (1, at_once)
    head, _, sent = connection.written.partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert zlib.decompress(sent, 31) == body


async def test_a_client_that_leaves_while_its_answer_is_compressed_is_recorded() -> None:
    door, connection = await with_waiting(LARGE)
    door.go_on()

    await connection.lose()
    await eventually(lambda: len(door.lines()) == 2)

    assert door.lines()[-1]["status"] == 499
    assert connection.written == b""
