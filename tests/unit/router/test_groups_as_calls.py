"""Calls that travel in groups fare in every respect as the same calls made one by one: the same
traffic goes through two routers, and after each step nothing tells them apart.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import (
    BrokerDown,
    DeadlinePassed,
    ModelFailed,
    Overloaded,
    ServiceError,
    Unavailable,
    Unroutable,
    to_work_error,
)
from tests.fakes.call_world import Batch, World

_TIMEOUTS_MS = [0, 300, 800, 1500, 3000, 10_000, 45_000, 45_000, 45_000, 90_000]
_TROUBLES = [Overloaded("full"), BrokerDown("away"), Unroutable("no queue"), ValueError("broken")]
_ERRORS: list[ServiceError | None] = [
    None,
    None,
    None,
    ModelFailed("it broke"),
    DeadlinePassed("late"),
    Overloaded("busy"),
]


class Twins:
    """Two routers that get the same traffic."""

    def __init__(self, data: st.DataObject) -> None:
        limits = {
            "slots": data.draw(st.integers(1, 2), "slots"),
            "window_per_slot": data.draw(st.sampled_from([1, 3, 8, 16, 64]), "window"),
            "max_queued_per_model": data.draw(st.sampled_from([5, 20, 500, 500]), "per model"),
            # So that both send at the same moments.
            "items_per_envelope": 32,
            "members_per_envelope": 32,
            "max_queued_per_tenant": data.draw(st.sampled_from([4, 30, 500, 500]), "per tenant"),
        }
        self.groups = World(grouped=True, **limits)
        self.alone = World(grouped=False, **limits)
        self.draw = data.draw
        self._numbers = itertools.count(1)

    async def each(self, act: Any) -> None:
        for world in (self.groups, self.alone):
            await act(world)
        self.compare()

    def compare(self) -> None:
        alone = self.alone.facts()
        for name, found in self.groups.facts().items():
            assert (name, found) == (name, alone[name])

    async def call(self) -> None:
        batches = self.draw(st.lists(st.builds(self._batch, _FORMS), min_size=1, max_size=3))
        await self.each(lambda world: world.call(batches))

    def _batch(self, form: dict[str, Any]) -> Batch:
        timeouts = form["timeouts_ms"]
        return Batch(tuple(itertools.islice(self._numbers, len(timeouts))), **form)

    async def cancel(self) -> None:
        known = sorted(self.groups.stream.calls)
        if known:
            some = st.lists(st.sampled_from(known), min_size=1, max_size=5, unique=True)
            numbers = self.draw(some)
            await self.each(lambda world: world.cancel(numbers))

    async def hang_up(self) -> None:
        async def close(world: World) -> None:
            world.stream.close()
            await world.settle()

        await self.each(close)

    async def answer(self) -> None:
        """Replies to parts, whole, in pieces, again or late."""
        parts: dict[str, dict[int, int]] = {}
        for number, sent in self.groups.sent.items():
            parts.setdefault(sent.id, {})[sent.position] = number
        if not parts:
            return
        recent = st.sampled_from(list(parts)[-6:])
        chosen = []
        for id in self.draw(st.lists(recent, min_size=1, max_size=3)):
            positions = []
            if self.draw(st.booleans()):
                some = st.sets(st.sampled_from(sorted(parts[id])), min_size=1)
                positions = sorted(self.draw(some))
            chosen.append((id, positions))
        await self._tell(chosen, fails=True)

    async def _tell(self, chosen: list[tuple[str, list[int]]], *, fails: bool) -> None:
        """Replies to members of parts at positions, to all for none."""
        told: list[work_pb2.WorkReplyGroup] = []
        singly: list[tuple[int, work_pb2.WorkReply]] = []
        for id, positions in chosen:
            part = {
                sent.position: number for number, sent in self.groups.sent.items() if sent.id == id
            }
            numbers = [part[position] for position in positions or sorted(part)]
            reply = self._reply(numbers, fails=fails)
            told.append(work_pb2.WorkReplyGroup(id=id, members=positions, reply=reply))
            singly += [
                (number, columns.member_reply(reply, place, len(numbers)))
                for place, number in enumerate(numbers)
            ]
        await self.groups.reply(told)
        await self.alone.reply_singly(singly)
        self.compare()

    async def flood(self) -> None:
        """Two tenants send more than a busy model does in time, and it works for a while."""
        for credential in (1, 2, 1):
            timeouts = tuple(
                self.draw(st.lists(st.sampled_from(_TIMEOUTS_MS[1:]), min_size=8, max_size=24))
            )
            batch = self._batch({"timeouts_ms": timeouts, "credential": credential})
            await self.each(lambda world, batch=batch: world.call([batch]))
        seconds = self.draw(st.sampled_from([0.05, 0.1, 0.3]))
        for _ in range(self.draw(st.integers(1, 8))):
            await self.each(lambda world: world.pass_time(seconds))
            done = set(self.groups.answers)
            parts: dict[str, dict[int, int]] = {}
            for number, sent in self.groups.sent.items():
                parts.setdefault(sent.id, {})[sent.position] = number
            left = [id for id, part in parts.items() if not done.issuperset(part.values())]
            if left:
                await self._tell([(left[0], [])], fails=False)

    def _reply(self, numbers: list[int], *, fails: bool) -> work_pb2.WorkReply:
        error = self.draw(st.sampled_from(_ERRORS)) if fails else None
        reply = work_pb2.WorkReply(
            runtime="runtimes/r",
            queue_ns=3,
            compute_ns=self.draw(st.sampled_from([10_000, 5_000_000, 900_000_000])),
            rows=1,
            batch_rows=self.draw(st.integers(len(numbers), 40)),
            leads=self.draw(st.booleans()),
            cached=self.draw(st.integers(0, 9)) == 0,
        )
        if error is not None:
            reply.error.CopyFrom(to_work_error(error))
        else:
            data = b"".join([(3 * number).to_bytes(4, "little") for number in numbers])
            reply.outputs.add(name="y", datatype="INT32", shape=[1, 1], data=data)
        return reply

    async def pass_time(self) -> None:
        seconds = self.draw(st.sampled_from([0.001, 0.2, 0.5, 1.0, 10.0, 30.0]))
        await self.each(lambda world: world.pass_time(seconds))

    async def load_the_cold_model(self) -> None:
        async def load(world: World) -> None:
            world.ready.set()
            await world.settle()

        await self.each(load)

    async def trouble(self) -> None:
        """The broker fails to take a message, is lost, comes back, or confirms late."""
        what = self.draw(st.sampled_from(["errors", "lost", "back", "late", "confirm", "unserved"]))
        error = self.draw(st.sampled_from(_TROUBLES))

        async def act(world: World) -> None:
            broker = world.broker
            if what == "errors":
                broker.errors = [error]
            elif what == "lost":
                broker.problem = "it does not answer"
                broker.lose()
            elif what == "back":
                broker.problem = ""
            elif what == "late":
                broker.confirms = False
            elif what == "confirm":
                broker.confirm()
            else:
                world.pending.fail_key("default/iris/1/any", Unavailable("nobody serves it"))
            await world.settle()

        await self.each(act)

    async def drain(self) -> None:
        """In the end every call has had its answer, or its caller went away."""
        for world in (self.groups, self.alone):
            world.broker.problem = ""
            world.broker.errors = []
            world.broker.confirm()
            world.ready.set()
            world.stream.drain()
        # Both go on as soon as one of them lets the loop run.
        await self.each(World.settle)
        for _ in range(4):
            await self.each(lambda world: world.pass_time(100.0))
        for world in (self.groups, self.alone):
            assert not world.stream.calls
            assert not world.pending.watched
            assert world.dispatcher._backlog.bytes == 0
            assert all(len(told) == 1 for told in world.answers.values() if told)
            for key in world.dispatcher.used_keys():
                world.dispatcher.forget_if_idle(key)
            assert world.dispatcher.used_keys() == []


_FORMS = st.fixed_dictionaries(
    {"timeouts_ms": st.lists(st.sampled_from(_TIMEOUTS_MS), min_size=1, max_size=40).map(tuple)},
    optional={
        "credential": st.sampled_from([1, 1, 2, 2, 3, 4]),
        "model": st.sampled_from(["iris"] * 5 + ["plain", "plain", "cold", "missing"]),
        "method": st.sampled_from(["predict"] * 6 + ["", "count", "divide"]),
        "datatype": st.sampled_from(["INT32"] * 6 + ["FP32"]),
        "outputs": st.sampled_from([(), (), ("y",), ("z",)]),
        "priority": st.integers(0, 4),
    },
)
_STEPS = (
    [Twins.call] * 4
    + [Twins.flood] * 4
    + [Twins.answer] * 5
    + [Twins.cancel] * 2
    + [Twins.pass_time] * 2
    + [Twins.trouble, Twins.load_the_cold_model, Twins.hang_up]
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_calls_in_groups_fare_as_calls_one_by_one(data: st.DataObject) -> None:
    async def run() -> None:
        twins = Twins(data)
        await twins.each(World.start)
        for step in data.draw(st.lists(st.sampled_from(_STEPS), min_size=2, max_size=12)):
            await step(twins)
        await twins.drain()

    asyncio.run(run())
