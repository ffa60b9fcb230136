"""Groups over a real hub, by the real clock: a runtime reads them plainly, member by member."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog

from services.chassis.broker.port import Delivery, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.router.dispatch.dispatcher import Dispatcher
from services.router.queueing.admission import QueuePolicy
from services.router.queueing.members import GroupWork
from services.router.queueing.pending_requests import Outcome, PendingRequests
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns, topology
from stellwerk.wire.errors import ModelFailed, ServiceError, to_work_error
from tests.fakes.dispatch_rig import KEY
from tests.fakes.eventually import eventually

FAIL, SILENT = 1_000_000, 2_000_000


class PlainRuntime:
    """Doubles each member's number; fails and keeps silent where the number asks for it. Answers
    the members of a group in pieces of `piece`, or the group as a whole for 0.
    """

    def __init__(self, broker: HubBroker) -> None:
        self._broker = broker
        self.piece = 0
        self.groups = 0
        self.cancelled: list[tuple[str, list[int]]] = []

    async def start(self) -> None:
        await self._broker.consume(topology.inference_queue(KEY), self._work, prefetch=10)
        await self._broker.subscribe(topology.WORK_CANCELLED, self._cancel)

    async def _work(self, delivery: Delivery) -> None:
        envelope = work_pb2.WorkEnvelope.FromString(delivery.message.body)
        replies = work_pb2.WorkReplyEnvelope()
        for group in envelope.groups:
            self.groups += 1
            count = len(group.timeouts_ms)
            columns.check(group.form, count, group.request_ids)
            numbers = [_number(columns.member(group.form, index, count)) for index in range(count)]
            if self.piece or max(numbers) >= FAIL:
                self._answer_pieces(replies, group.id, numbers)
            else:
                replies.groups.append(_reply(group.id, [], numbers))
        await self._broker.publish(delivery.message.reply_to, Message(replies.SerializeToString()))
        delivery.ack()

    def _answer_pieces(
        self, replies: work_pb2.WorkReplyEnvelope, id: str, numbers: Sequence[int]
    ) -> None:
        good = [place for place, number in enumerate(numbers) if number < FAIL]
        step = self.piece or len(numbers)
        for start in range(0, len(good), step):
            some = good[start : start + step]
            replies.groups.append(_reply(id, some, [numbers[place] for place in some]))
        failed = [place for place, number in enumerate(numbers) if FAIL <= number < SILENT]
        if failed:
            error = to_work_error(ModelFailed("it broke"))
            replies.groups.add(id=id, members=failed, reply=work_pb2.WorkReply(error=error))

    def _cancel(self, delivery: Delivery) -> None:
        for group in work_pb2.Cancellation.FromString(delivery.message.body).groups:
            self.cancelled.append((group.id, list(group.members)))


def _number(work: work_pb2.WorkItem) -> int:
    return int.from_bytes(work.inputs[0].data, "little")


def _reply(id: str, members: list[int], numbers: list[int]) -> work_pb2.WorkReplyGroup:
    told = work_pb2.WorkReplyGroup(id=id, members=members)
    data = b"".join([(2 * number).to_bytes(4, "little") for number in numbers])
    told.reply.outputs.add(name="y", datatype="INT32", shape=[1], data=data)
    told.reply.leads = True
    told.reply.compute_ns = 1000
    told.reply.batch_rows = len(numbers)
    return told


class Caller:
    """Submits groups of numbers and notes what each member hears."""

    def __init__(self) -> None:
        self.broker = HubBroker(Hub())
        self.pending = PendingRequests()
        self.dispatcher = Dispatcher(self.broker, self.pending, "r1", structlog.get_logger())
        self.runtime = PlainRuntime(self.broker)
        self.heard: dict[int, list[str | int]] = {}

    def submit(self, numbers: Sequence[int], seconds: float = 5.0, tenant: str = "a") -> GroupWork:
        works = []
        for number in numbers:
            work = work_pb2.WorkItem(method="predict")
            data = number.to_bytes(4, "little")
            work.inputs.add(name="x", datatype="INT32", shape=[1], data=data)
            works.append(work)
            self.heard[number] = []

        def on_reply(members: Sequence[int], outcome: Outcome) -> None:
            for place, index in enumerate(members):
                if isinstance(outcome, ServiceError):
                    told: str | int = outcome.reason
                else:
                    reply = columns.member_reply(outcome, place, len(members))
                    outputs = [int.from_bytes(one.data, "little") for one in reply.outputs]
                    told = reply.error.reason or outputs[0]
                self.heard[numbers[index]].append(told)

        deadlines = [time.monotonic() + seconds] * len(numbers)
        ids = [f"r{number}" for number in numbers]
        group = GroupWork(columns.join(works), deadlines, ids, [], on_reply, member_bytes=100)
        members = list(range(len(numbers)))
        self.dispatcher.submit_group(KEY, group, members, tenant, QueuePolicy())
        return group

    async def all_heard(self) -> None:
        await eventually(lambda: all(self.heard.values()))


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    caller = Caller()
    await caller.broker.start()
    await caller.dispatcher.listen()
    await caller.runtime.start()
    yield caller
    await caller.broker.close()


@pytest.mark.parametrize("piece", [0, 7])
async def test_every_member_gets_its_own_answer(caller: Caller, piece: int) -> None:
    caller.runtime.piece = piece
    for start in range(0, 900, 90):
        caller.submit(range(start, start + 90), tenant="ab"[start // 90 % 2])

    await caller.all_heard()

    assert caller.heard == {number: [2 * number] for number in range(900)}
    assert len(caller.pending) == 0
    assert not caller.pending.watched


async def test_an_error_reaches_only_the_member_it_is_for(caller: Caller) -> None:
    caller.submit([1, FAIL, 3])

    await caller.all_heard()

    assert caller.heard == {1: [2], FAIL: ["MODEL_FAILED"], 3: [6]}


async def test_a_silent_member_ends_at_its_deadline(caller: Caller) -> None:
    caller.submit([1, SILENT, 3], seconds=0.2)

    await caller.all_heard()

    assert caller.heard == {1: [2], SILENT: ["DEADLINE_PASSED"], 3: [6]}


async def test_a_runtime_hears_which_members_nobody_waits_for_any_more(caller: Caller) -> None:
    group = caller.submit([SILENT, 1, SILENT + 2, SILENT + 3])
    await eventually(lambda: bool(caller.heard[1]))

    caller.dispatcher.groups.cancel(group, 0)
    caller.dispatcher.groups.cancel(group, 3)
    caller.dispatcher.groups.cancel(group, 1)
    await eventually(lambda: bool(caller.runtime.cancelled))

    assert caller.runtime.cancelled == [("r1.1", [0, 3])]
    assert caller.heard == {SILENT: [], 1: [2], SILENT + 2: [], SILENT + 3: []}
