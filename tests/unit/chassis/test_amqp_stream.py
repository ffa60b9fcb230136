"""A lone write is in the socket at once, a burst goes in one piece, and an end has one reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from services.chassis.broker.amqp.incoming import Incoming


class Transport:
    """The event loop's transport; keeps each send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: Sequence[bytes | memoryview]) -> None:
        self.sent.append(b"".join(pieces))

    def abort(self) -> None:
        self.aborted = True


class Protocol:
    """pika's side of the stream."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[BaseException | None] = []

    def connection_made(self, transport: Any) -> None:
        transport.write(b"AMQP")

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"bad" in data:
            raise ValueError("no frame")

    def connection_lost(self, error: BaseException | None) -> None:
        self.lost.append(error)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Incoming, Transport, Protocol, Clock]:
    made: list[Incoming] = []
    transport, protocol, clock = Transport(), Protocol(), Clock()
    stream = Incoming(protocol, made.append, clock)
    stream.connection_made(transport)  # type: ignore[arg-type]
    assert made == [stream]
    transport.sent.clear()
    clock.now += 1
    return stream, transport, protocol, clock


async def test_a_lone_write_is_sent_before_it_returns() -> None:
    stream, transport, _, clock = opened()

    stream.outgoing.write(b"a")
    clock.now += 0.001
    stream.outgoing.write(b"b")

    assert transport.sent == [b"a", b"b"]


async def test_what_follows_at_once_is_sent_together_within_a_turn() -> None:
    stream, transport, _, clock = opened()

    for byte in b"abcd":
        stream.outgoing.write(bytes((byte,)))
        clock.now += 0.00001
    assert transport.sent == [b"a"]
    await asyncio.sleep(0)

    assert transport.sent == [b"a", b"bcd"]


async def test_nothing_overtakes_what_was_gathered() -> None:
    stream, transport, _, clock = opened()

    stream.outgoing.write(b"a")
    stream.outgoing.write(b"b")
    clock.now += 1
    stream.outgoing.write(b"c")
    stream.outgoing.write_all([b"d", memoryview(b"e")])
    stream.outgoing.write(b"f")
    await asyncio.sleep(0)

    assert b"".join(transport.sent) == b"abcdef"


async def test_what_is_written_after_the_end_goes_nowhere() -> None:
    stream, transport, protocol, _ = opened()
    stream.outgoing.write(b"a")
    stream.outgoing.write(b"b")

    stream.connection_lost(None)
    stream.outgoing.write(b"c")
    stream.outgoing.write_all([b"d"])
    await asyncio.sleep(0)

    assert transport.sent == [b"a"]
    assert protocol.lost == [None]


async def test_a_stream_that_cannot_be_read_ends_with_the_reason_and_is_read_no_further() -> None:
    stream, transport, protocol, _ = opened()

    stream.data_received(b"\x08\x00\x00\x00\x00\x00\x03bad\xce")
    stream.data_received(b"\x08\x00\x00\x00\x00\x00\x04more\xce")
    stream.connection_lost(None)

    assert transport.aborted
    assert b"more" not in protocol.received
    assert isinstance(protocol.lost[0], ValueError)


async def test_whoever_gives_a_stream_up_says_why_once() -> None:
    stream, transport, protocol, _ = opened()
    silence = ConnectionError("silent")

    stream.outgoing.abort(silence)
    stream.outgoing.abort(None)
    stream.connection_lost(None)

    assert transport.aborted
    assert protocol.lost == [silence]


async def test_all_bytes_count_as_received_whoever_they_are_for() -> None:
    stream, _, _, _ = opened()

    stream.data_received(b"\x08\x00\x00\x00\x00")
    stream.data_received(b"\x00\x00\xce")

    # Or a busy broker would be taken for silent.
    assert stream.bytes_received == 8
