"""One stream to the hub, from its opening to its end: numbered requests, outcomes, deliveries."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import grpc

from services.chassis import background
from services.chassis.broker.port import Handler
from services.chassis.broker.pull.frames import gathered
from services.chassis.futures import settle
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.wire.errors import BrokerDown

OnDelivery = Callable[["Session", pull.Delivery], None]

# Seconds. A hub that owes the oldest outcome for longer gets no further request until it answers.
_STALLED_SECONDS = 5.0
_LOST = "the connection to the router was lost before it answered; try again"


class Session:
    """An open stream. It has ended when `run` returns; frames sent later are dropped."""

    def __init__(self, call: Any, on_delivery: OnDelivery) -> None:
        self._call = call
        self._on_delivery = on_delivery
        self.handlers: dict[int, Handler] = {}
        self._outbox: deque[pull.ExchangeRequest] = deque()
        self._wake = asyncio.Event()
        self._asked: OrderedDict[int, tuple[asyncio.Future[pull.Outcome], float]] = OrderedDict()
        self._sequence = 0
        self._over = False

    @property
    def stalled(self) -> bool:
        """True if the hub owes an outcome for longer than 5 seconds."""
        if not self._asked:
            return False
        _, asked_at = next(iter(self._asked.values()))
        return asyncio.get_running_loop().time() - asked_at > _STALLED_SECONDS

    def ask(self, request: pull.ExchangeRequest) -> tuple[int, asyncio.Future[pull.Outcome]]:
        """Sends a request; returns its number and the outcome to wait for.

        Raises BrokerDown if the stream has ended or the hub is stalled.
        """
        if self._over or self.stalled:
            raise BrokerDown("the router does not answer; try again shortly")
        loop = asyncio.get_running_loop()
        self._sequence += 1
        request.sequence = self._sequence
        answer: asyncio.Future[pull.Outcome] = loop.create_future()
        self._asked[self._sequence] = (answer, loop.time())
        self.tell(request)
        return self._sequence, answer

    def tell(self, request: pull.ExchangeRequest) -> None:
        """Sends a request that has no outcome."""
        if not self._over:
            self._outbox.append(request)
            self._wake.set()

    def settle(self, tag: int, ack: bool, requeue: bool) -> None:
        """Settles a delivery; a rejected one that is not requeued counts as acknowledged."""
        self.tell(pull.ExchangeRequest(settle=pull.Settle(tag=tag, ack=ack or not requeue)))

    async def run(self) -> None:
        """Reads and writes until the stream ends. Raises the error it ends with."""
        writing = asyncio.get_running_loop().create_task(self._write())
        try:
            with self._call:
                while (response := await self._call.read()) is not grpc.aio.EOF:
                    for frame in response.batch or (response,):
                        if frame.WhichOneof("frame") == "delivery":
                            self._on_delivery(self, frame.delivery)
                        else:
                            self._answer(frame)
        finally:
            self._over = True
            self._fail_all()
            await background.end(writing)

    def _answer(self, response: pull.ExchangeResponse) -> None:
        answer, _ = self._asked.pop(response.sequence, (None, 0.0))
        if answer is not None:
            settle(answer, response.outcome)

    async def _write(self) -> None:
        while True:
            while self._outbox:
                frames = gathered(self._outbox, lambda frame: len(frame.publish.message.body))
                await self._call.write(
                    frames[0] if len(frames) == 1 else pull.ExchangeRequest(batch=frames)
                )
            self._wake.clear()
            await self._wake.wait()

    def _fail_all(self) -> None:
        while self._asked:
            answer, _ = self._asked.popitem(last=False)[1]
            settle(answer, BrokerDown(_LOST))
            # Marks the exception as retrieved: asyncio would log it if nobody waits any more.
            answer.cancelled() or answer.exception()
