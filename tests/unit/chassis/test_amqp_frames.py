"""Frames packed in one step are byte for byte what pika makes of the same message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from services.chassis.broker.amqp.channel import pack_ack
from services.chassis.broker.amqp.outgoing import Outgoing
from services.chassis.broker.port import Message

FRAME_MAX = 4096
names = st.text(max_size=60)
messages = st.builds(
    Message,
    body=st.binary(max_size=64) | st.integers(FRAME_MAX - 10, 3 * FRAME_MAX).map(bytes),
    headers=st.dictionaries(names.filter(bool), st.text(max_size=300), max_size=4),
    reply_to=names,
    correlation_id=names,
    expiration_ms=st.integers(0, 10**9),
    message_id=names,
)


def by_pika(
    channel: int, exchange: str, key: str, message: Message, mandatory: bool, mark: str
) -> bytes:
    """The same publish, made by pika."""
    properties = BasicProperties(
        headers=dict(message.headers) or None,
        delivery_mode=1,
        reply_to=message.reply_to or None,
        correlation_id=message.correlation_id or None,
        expiration=str(message.expiration_ms) if message.expiration_ms else None,
        message_id=message.message_id or None,
        app_id=mark or None,
    )
    room = FRAME_MAX - 8
    chunks = [message.body[at : at + room] for at in range(0, len(message.body), room)]
    frames = [
        frame.Method(
            channel, spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        ),
        frame.Header(channel, len(message.body), properties),
        *(frame.Body(channel, chunk) for chunk in chunks),
    ]
    return b"".join(part.marshal() for part in frames)


class Transport:
    """The event loop's transport; keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def writelines(self, pieces: Sequence[bytes | memoryview]) -> None:
        self.pieces += pieces


def sent(*arguments: Any, **named: Any) -> list[bytes | memoryview]:
    """The pieces of one publish."""
    transport = Transport()
    Outgoing(None, transport).publish(*arguments, **named)
    return transport.pieces


@given(
    st.integers(1, 2047),
    names,
    names,
    messages,
    st.booleans(),
    st.integers(0, 10**18).map(str) | st.just(""),
)
def test_a_publish_is_what_pika_makes_of_it(
    channel: int, exchange: str, key: str, message: Message, mandatory: bool, mark: str
) -> None:
    pieces = sent(
        channel, exchange, key, message, mandatory=mandatory, mark=mark, frame_max=FRAME_MAX
    )

    assert b"".join(pieces) == by_pika(channel, exchange, key, message, mandatory, mark)


def test_a_large_body_is_not_copied() -> None:
    body = bytes(1024 * 1024)

    pieces = sent(1, "", "q", Message(body), mandatory=True, mark="1", frame_max=128 * 1024)

    chunks = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert all(chunk.obj is body for chunk in chunks)
    assert b"".join(chunks) == body


@given(st.integers(1, 2047), st.integers(1, 2**63 - 1), st.booleans())
def test_an_acknowledgement_is_what_pika_makes_of_it(
    channel: int, tag: int, multiple: bool
) -> None:
    expected = frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()

    assert pack_ack(channel, tag, multiple=multiple) == expected
