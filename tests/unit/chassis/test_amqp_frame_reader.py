"""However a stream is cut into reads, deliveries and confirms come out of it, and pika gets all the
rest in order.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from services.chassis.broker.amqp.incoming import FrameError, FrameReader
from services.chassis.broker.port import Message

CONSUMING, PUBLISHING, OTHER = 1, 2, 3
ROOM = 24
names = st.text(max_size=20)


def marshalled(*frames: Any) -> bytes:
    return b"".join(part.marshal() for part in frames)


def content(channel: int, method: Any, properties: BasicProperties, body: bytes) -> bytes:
    chunks = [body[at : at + ROOM] for at in range(0, len(body), ROOM)]
    bodies = [frame.Body(channel, chunk) for chunk in chunks]
    return marshalled(
        frame.Method(channel, method), frame.Header(channel, len(body), properties), *bodies
    )


def unusual(packed: bytes, body: bytes) -> Message:
    """Stands for pika's reading of properties."""
    return Message(body, {"read": "by pika"})


@st.composite
def deliveries(draw: st.DrawFn, channel: int) -> tuple[bytes, Any]:
    message = Message(
        draw(st.binary(max_size=4 * ROOM)),
        draw(st.dictionaries(names.filter(bool), names, max_size=3)),
        draw(names),
        draw(names),
        draw(st.integers(0, 10**6)),
        draw(names),
    )
    tag, redelivered, key = draw(st.integers(1, 2**60)), draw(st.booleans()), draw(names)
    strange = draw(st.booleans())
    properties = BasicProperties(
        content_type="text/plain" if strange else None,
        headers=dict(message.headers) or None,
        delivery_mode=1,
        correlation_id=message.correlation_id or None,
        reply_to=message.reply_to or None,
        expiration=str(message.expiration_ms) if message.expiration_ms else None,
        message_id=message.message_id or None,
        app_id="another's",
    )
    packed = content(
        channel,
        spec.Basic.Deliver("a consumer", tag, redelivered, "", key),
        properties,
        message.body,
    )
    expected = unusual(b"", message.body) if strange else message
    return packed, ("delivery", tag, redelivered, key, expected)


@st.composite
def confirms(draw: st.DrawFn) -> tuple[bytes, Any]:
    tag, multiple, accepted = draw(st.integers(1, 2**60)), draw(st.booleans()), draw(st.booleans())
    method = spec.Basic.Ack(tag, multiple) if accepted else spec.Basic.Nack(tag, multiple, False)
    return marshalled(frame.Method(PUBLISHING, method)), ("confirm", tag, multiple, accepted)


def for_pika(packed: bytes) -> tuple[bytes, Any]:
    return packed, ("pika", packed)


returned = content(
    PUBLISHING,
    spec.Basic.Return(312, "NO_ROUTE", "", "q"),
    BasicProperties(app_id="7"),
    b"back" * 20,
)
events = st.lists(
    st.one_of(
        deliveries(CONSUMING),
        confirms(),
        # Of channels that asked for nothing, and what only pika knows on those that did.
        deliveries(OTHER).map(lambda made: for_pika(made[0])),
        st.sampled_from(
            [
                for_pika(returned),
                for_pika(marshalled(frame.Heartbeat())),
                for_pika(marshalled(frame.Method(CONSUMING, spec.Basic.Cancel("a consumer")))),
                for_pika(
                    marshalled(frame.Method(PUBLISHING, spec.Channel.Close(404, "gone", 0, 0)))
                ),
                for_pika(marshalled(frame.Method(OTHER, spec.Basic.Ack(1, False)))),
            ]
        ),
    ),
    max_size=8,
)


class Heard:
    """A reader with two channels, and what came out of it, in order; pika's share joined where
    nothing came between.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.reader = FrameReader(self._pass_on)
        self.reader.take_deliveries(
            CONSUMING, lambda *delivery: self.events.append(("delivery", *delivery)), unusual
        )
        self.reader.take_confirms(
            PUBLISHING, lambda *confirm: self.events.append(("confirm", *confirm))
        )

    def _pass_on(self, data: bytes) -> None:
        self.add(("pika", data))

    def add(self, event: Any) -> None:
        if event[0] == "pika" and self.events and self.events[-1][0] == "pika":
            event = ("pika", self.events.pop()[1] + event[1])
        self.events.append(event)


@given(events, st.data())
def test_a_stream_cut_anywhere_gives_the_same_events_in_the_same_order(
    sent: list[Any], data: st.DataObject
) -> None:
    stream = b"".join(packed for packed, _ in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    heard, expected = Heard(), Heard()
    for _, event in sent:
        expected.add(event)

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard.reader.feed(stream[start:end])

    assert heard.events == expected.events


@given(events)
def test_pika_gets_whole_frames_only(sent: list[Any]) -> None:
    stream = b"".join(packed for packed, _ in sent)
    whole: list[bytes] = []
    reader = FrameReader(whole.append)

    for at in range(len(stream)):
        reader.feed(stream[at : at + 1])

    for data in whole:
        consumed, decoded = frame.decode_frame(data)
        assert decoded is not None
        assert consumed == len(data)
    assert b"".join(whole) == stream


def test_a_channel_that_is_forgotten_is_pikas_again() -> None:
    heard, confirm = Heard(), marshalled(frame.Method(PUBLISHING, spec.Basic.Ack(1, False)))

    heard.reader.forget(PUBLISHING)
    heard.reader.feed(confirm)

    assert heard.events == [("pika", confirm)]


def test_headers_that_are_no_strings_are_read_by_pika() -> None:
    heard, properties = Heard(), BasicProperties(headers={"a": "text", "count": 3})

    heard.reader.feed(
        content(CONSUMING, spec.Basic.Deliver("c", 1, False, "", "q"), properties, b"x")
    )

    assert heard.events == [("delivery", 1, False, "q", unusual(b"", b"x"))]


def test_a_body_longer_than_announced_is_an_error() -> None:
    start = marshalled(
        frame.Method(CONSUMING, spec.Basic.Deliver("c", 1, False, "", "q")),
        frame.Header(CONSUMING, 3, BasicProperties()),
        frame.Body(CONSUMING, b"four"),
    )

    with pytest.raises(FrameError):
        Heard().reader.feed(start)


def test_a_frame_without_its_end_is_an_error() -> None:
    confirm = marshalled(frame.Method(PUBLISHING, spec.Basic.Ack(1, False)))

    with pytest.raises(FrameError):
        Heard().reader.feed(confirm[:-1] + b"\x00")


def test_the_greeting_of_another_version_is_left_to_pika() -> None:
    heard = Heard()

    heard.reader.feed(b"AMQP\x00\x01\x00\x00")

    assert heard.events == [("pika", b"AMQP\x00\x01\x00\x00")]
