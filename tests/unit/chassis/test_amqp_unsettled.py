"""Gathered acknowledgements settle exactly what was acknowledged, with as few frames as that
takes.
"""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.broker.amqp.channel import Unsettled


class Channel:
    """The broker's side: what it believes to be unsettled."""

    def __init__(self, deliveries: int) -> None:
        self.unsettled = set(range(1, deliveries + 1))
        self.frames: list[tuple[int, bool]] = []

    def settle(self, tag: int, multiple: bool) -> None:
        settled = {other for other in self.unsettled if other <= tag} if multiple else {tag}
        assert settled <= self.unsettled, "a tag was settled twice"
        assert tag in self.unsettled
        self.unsettled -= settled
        self.frames.append((tag, multiple))


def acks_of(channel: Channel) -> Unsettled:
    acks = Unsettled(channel.settle)
    for tag in sorted(channel.unsettled):
        acks.add(tag)
    return acks


steps = st.lists(
    st.tuples(st.sampled_from(["ack", "ack", "reject", "flush"]), st.integers(1, 30)), max_size=60
)


@given(steps)
async def test_the_broker_forgets_what_was_acknowledged_and_nothing_else(
    steps: list[tuple[str, int]],
) -> None:
    channel = Channel(30)
    acks, open_tags = acks_of(channel), set(range(1, 31))

    for step, tag in steps:
        if step == "flush":
            acks.flush()
        elif tag in open_tags:
            open_tags.discard(tag)
            if step == "ack":
                acks.acknowledge(tag)
            else:
                acks.remove(tag)
                channel.unsettled.discard(tag)
    acks.flush()

    assert channel.unsettled == open_tags
    assert len(acks) == len(open_tags)


async def test_one_frame_speaks_for_a_whole_turn() -> None:
    channel = Channel(10)
    acks = acks_of(channel)

    for tag in (3, 1, 2, 4, 9):
        acks.acknowledge(tag)
    assert not channel.frames
    await asyncio.sleep(0)

    assert channel.frames == [(4, True), (9, False)]


async def test_a_lone_acknowledgement_is_not_multiple() -> None:
    channel = Channel(2)
    acks = acks_of(channel)

    acks.acknowledge(1)
    await asyncio.sleep(0)

    assert channel.frames == [(1, False)]
