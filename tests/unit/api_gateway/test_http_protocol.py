"""The HTTP server below the door: who sends a request, whole answers in one write, and what is left
behind.
"""

from __future__ import annotations

import asyncio
import gc

import pytest

from services.api_gateway.http.request import JOINED_BYTES, HttpRequest
from tests.fakes.http_wire import Connection, turns

REQUEST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def echo(request: HttpRequest) -> None:
    body = await request.body(100, 1e12)
    await request.respond(200, b"content-length: %d\r\n" % len(body), body)


async def test_a_small_answer_is_one_write_and_the_connection_goes_on() -> None:
    connection = Connection(echo)

    await connection.send(REQUEST)
    await connection.send(REQUEST)

    assert len(connection.wire.writes) == 2
    date = connection.connections.date_line
    assert set(connection.wire.writes) == {
        b"HTTP/1.1 200 OK\r\n" + date + b"content-length: 2\r\n\r\nhi"
    }
    assert not connection.wire.closed


async def test_a_caller_that_asks_for_it_has_its_connection_closed() -> None:
    for head in (b"POST / HTTP/1.1\r\nconnection: close\r\n", b"POST / HTTP/1.0\r\n"):
        connection = Connection(echo)

        await connection.send(head + b"content-length: 2\r\n\r\nhi")

        assert b"\r\nconnection: close\r\n" in connection.wire.writes[0]
        assert connection.wire.closed


async def test_a_large_answer_is_not_copied_to_join_its_head() -> None:
    async def large(request: HttpRequest) -> None:
        await request.respond(200, b"", b"x" * (JOINED_BYTES + 1))

    connection = Connection(large)

    await connection.send(REQUEST)

    assert [len(data) > JOINED_BYTES for data in connection.wire.writes] == [False, True]


async def test_what_is_sent_before_its_answer_waits_for_its_turn() -> None:
    go_on, served = asyncio.Event(), list[bytes]()

    async def one_by_one(request: HttpRequest) -> None:
        served.append(await request.body(100, 1e12))
        await go_on.wait()
        await request.respond(200, b"", served[-1])

    connection = Connection(one_by_one)

    await connection.send(REQUEST + REQUEST.replace(b"hi", b"ho"))
    before = list(served)
    go_on.set()
    await turns()

    assert (before, served) == ([b"hi"], [b"hi", b"ho"])
    assert [data[-2:] for data in connection.wire.writes] == [b"hi", b"ho"]


async def test_who_goes_away_cancels_what_is_served_and_gets_no_answer() -> None:
    ends = list[str]()

    async def wait(request: HttpRequest) -> None:
        await request.body(100, 1e12)
        request.watch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append(f"cancelled, gone: {request.gone}")
        await request.respond(200, b"", b"")

    connection = Connection(wait)
    await connection.send(REQUEST)

    await connection.lose()

    assert ends == ["cancelled, gone: True"]
    assert not connection.wire.writes


async def test_who_went_away_before_anybody_watched_is_noticed_then() -> None:
    ends, go_on = list[str](), asyncio.Event()

    async def late(request: HttpRequest) -> None:
        await go_on.wait()
        request.watch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")

    connection = Connection(late)
    await connection.send(REQUEST)
    await connection.lose()

    go_on.set()
    await turns()

    assert ends == ["cancelled"]


async def test_who_leaves_with_its_answer_cancels_nothing() -> None:
    connection = Connection(echo)
    await connection.send(REQUEST)

    await connection.lose()

    assert len(connection.wire.writes) == 1


async def test_a_body_in_pieces_is_waited_for() -> None:
    connection = Connection(echo)

    for at in range(len(REQUEST)):
        await connection.send(REQUEST[at : at + 1])

    assert connection.wire.writes[0].endswith(b"hi")


async def test_a_served_request_leaves_nothing_to_the_garbage_collector() -> None:
    async def watched(request: HttpRequest) -> None:
        body = await request.body(100, 1e12)
        request.watch()
        await request.respond(200, b"", body)
        request.on_gone = None

    connection = Connection(watched)
    await connection.send(REQUEST)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(50):
            await connection.send(REQUEST)
        gc.collect()
        # Other tests' threads may leave garbage of their own meanwhile.
        found = [one for one in gc.garbage if isinstance(one, HttpRequest | asyncio.Task)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert not found


UPGRADE = (
    b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
)
# A body that is a request itself, which must never be taken for one.
INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
FRAMED = [
    b"Content-Length: %d\r\n\r\n%b" % (len(INNER), INNER),
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER),
]


def bodies_of(writes: list[bytes]) -> list[bytes]:
    """Returns the bodies of responses with a Content-Length."""
    left, found = b"".join(writes), []
    while left:
        head, _, left = left.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(left[:length])
        left = left[length:]
    return found


@pytest.mark.parametrize("framed", FRAMED, ids=["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
async def test_an_offer_to_upgrade_is_ignored_and_its_body_is_read(
    framed: bytes, pieces: int
) -> None:
    connection = Connection(echo)
    sent = UPGRADE + framed + REQUEST
    step = max(1, len(sent) // pieces)

    for at in range(0, len(sent), step):
        await connection.send(sent[at : at + step])

    assert bodies_of(connection.wire.writes) == [INNER, b"hi"]


async def test_offers_to_upgrade_may_follow_each_other() -> None:
    connection = Connection(echo)

    await connection.send((UPGRADE + FRAMED[0]) * 2 + UPGRADE + b"\r\n" + REQUEST)

    assert bodies_of(connection.wire.writes) == [INNER, INNER, b"", b"hi"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_trailers_are_no_headers(cut: int) -> None:
    seen: list[dict[bytes, bytes]] = []

    async def note(request: HttpRequest) -> None:
        seen.append(request.head.headers)
        await echo(request)

    connection = Connection(note)
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    rest = b"2\r\nhi\r\n0\r\nAuthorization: Bearer y\r\nHost: z\r\n\r\n"
    await connection.send(head + rest[:cut])
    await connection.send(rest[cut:])

    assert seen == [{b"host": b"x", b"transfer-encoding": b"chunked"}]
    assert bodies_of(connection.wire.writes) == [b"hi"]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_head_beyond_its_bound_is_refused_however_it_arrives(pieces: int) -> None:
    connection = Connection(echo)
    sent = b"GET /a HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * 65536)
    step = len(sent) // pieces + 1

    for at in range(0, len(sent), step):
        if not connection.wire.closed:
            await connection.send(sent[at : at + step])

    (answer,) = connection.wire.writes
    assert answer.startswith(b"HTTP/1.1 400") and b"headers are too large" in answer
    assert connection.wire.closed


async def test_a_read_of_many_small_heads_is_no_large_one() -> None:
    connection = Connection(echo)

    await connection.send(REQUEST * 2000)
    while len(connection.wire.writes) < 2000:
        await turns()

    assert bodies_of(connection.wire.writes) == [b"hi"] * 2000


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        (b"POST / HTTP/2.0", b"Host: x", "must be of HTTP/1.1"),
        (b"POST / HTTP/1.1", b"Host: x\r\nTransfer-Encoding: gzip, chunked", "must be chunked"),
    ],
)
async def test_a_version_or_coding_that_is_not_spoken_is_malformed(
    line: bytes, field: bytes, problem: str
) -> None:
    seen: list[str] = []

    async def note(request: HttpRequest) -> None:
        seen.append(request.head.malformed)

    await Connection(note).send(line + b"\r\n" + field + b"\r\n\r\n")

    assert len(seen) == 1 and problem in seen[0]
