"""What the router's dispatcher costs a request, in microseconds of CPU: from `submit` to the
answer, with a broker that takes and answers at once. Run as `python -m
benchmarks.dispatch_path`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import structlog
import uvloop

from services.chassis.broker.port import Broker, Delivery, Handler, Message
from services.router.dispatch.dispatcher import Dispatcher
from services.router.queueing.pending_requests import Outcome, PendingTable
from services.router.queueing.queue_policy import QueuePolicy
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import Overloaded

KEY = "default/iris/1/any"
_PATIENT = 3600.0


class _Answers:
    """A delivery of replies."""

    redelivered, routing_key = False, ""

    def __init__(self, body: bytes) -> None:
        self.message = Message(body)

    def ack(self) -> None: ...

    def nack(self, *, requeue: bool) -> None: ...


class InstantBroker:
    """Confirms at once and answers in the next turn of the loop. Its own time is kept apart."""

    problem = ""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.envelopes = 0
        # Takes work and never answers it.
        self.silent = False

    def on_lost(self, callback: Callable[[str], None]) -> None: ...

    async def declare(self, queue: object) -> None: ...

    async def consume(self, queue: object, handler: Handler, **options: Any) -> None:
        self._handler, self._loop = handler, asyncio.get_running_loop()

    def post(self, queue: str, message: Message, **options: Any) -> asyncio.Future[None]:
        loop = self._loop
        posted: asyncio.Future[None] = loop.create_future()
        posted.set_result(None)
        if self.silent:
            return posted
        started = time.process_time()
        envelope = work_pb2.WorkEnvelope.FromString(message.body)
        replies = work_pb2.WorkReplyEnvelope()
        for place, item in enumerate(envelope.items):
            replies.replies.add(
                id=item.id,
                outputs=[tensor_pb2.Tensor(name="y", datatype="INT64", shape=[1], data=bytes(8))],
                runtime="r1",
                compute_ns=100_000,
                rows=1,
                batch_rows=len(envelope.items),
                leads=not place,
            )
        delivery = _Answers(replies.SerializeToString())
        self.envelopes += 1
        self.seconds += time.process_time() - started
        loop.call_soon(self._handler, cast(Delivery, delivery))
        return posted


def _item() -> work_pb2.WorkItem:
    tensor = tensor_pb2.Tensor(name="x", datatype="FP64", shape=[1, 4], data=bytes(32))
    return work_pb2.WorkItem(method="predict", inputs=[tensor], context={"x-request-id": "0" * 32})


async def _rig(broker: InstantBroker) -> Dispatcher:
    dispatcher = Dispatcher(
        cast(Broker, broker), PendingTable(), "router-0", structlog.get_logger()
    )
    await dispatcher.listen()
    return dispatcher


async def answered(in_flight: int, items: int) -> tuple[float, float]:
    """CPU-microseconds of an item with so many in flight, and items per envelope."""
    broker = InstantBroker()
    dispatcher = await _rig(broker)
    waiting = [_item() for _ in range(items)]
    left, done = items, asyncio.Event()

    def on_answer(_: Outcome) -> None:
        nonlocal left
        left -= 1
        if waiting:
            submit()
        elif not left:
            done.set()

    def submit() -> None:
        deadline = time.monotonic() + _PATIENT
        dispatcher.submit(
            KEY, waiting.pop(), deadline=deadline, tenant="users/ada", answered=on_answer
        )

    started = time.process_time()
    for _ in range(in_flight):
        submit()
    await done.wait()
    spent = time.process_time() - started - broker.seconds
    return spent / items * 1e6, items / broker.envelopes


async def refused(items: int) -> float:
    """CPU-microseconds of a request that is refused because the queue is full."""
    broker = InstantBroker()
    broker.silent = True
    dispatcher = await _rig(broker)
    policy, item, refusals = QueuePolicy(max_queued=100), _item(), 0
    deadline = time.monotonic() + _PATIENT
    spent = 0.0
    while refusals < items:
        started = time.process_time()
        try:
            dispatcher.submit(
                KEY,
                item,
                deadline=deadline,
                tenant="users/ada",
                policy=policy,
                answered=lambda _: None,
            )
        except Overloaded:
            spent += time.process_time() - started
            refusals += 1
        else:
            await asyncio.sleep(0)
    return spent / items * 1e6


async def main() -> None:
    """Measures and prints; the first round warms up."""
    await answered(64, 5_000)
    for in_flight in (1, 64, 256):
        rounds = [await answered(in_flight, 20_000) for _ in range(3)]
        micros, gathered = min(rounds)
        print(
            f"{in_flight:4} in flight: {micros:6.1f} µs of CPU an item, {gathered:5.1f} items an"
            " envelope"
        )
    print(f"   a refusal: {min([await refused(5_000) for _ in range(3)]):6.1f} µs of CPU")


if __name__ == "__main__":
    uvloop.run(main())
