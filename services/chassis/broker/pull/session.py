"""One stream to the hub, from its opening to its end: numbered questions, their answers,
deliveries.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import grpc

from services.chassis.broker.port import Handler
from services.chassis.broker.pull.frames import gathered
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.wire.errors import BrokerDown

OnDelivery = Callable[["Session", pull.Delivery], None]

# A hub that owes an answer for so long is not asked again until it gives one.
_STALLED_SECONDS = 5.0


class Session:
    """An open stream. Over when `run` returns; what is sent afterwards goes nowhere."""

    def __init__(self, call: Any, on_delivery: OnDelivery) -> None:
        self._call, self._on_delivery = call, on_delivery
        self.handlers: dict[int, Handler] = {}
        self._outbox: deque[pull.ExchangeRequest] = deque()
        self._wake = asyncio.Event()
        self._asked: OrderedDict[int, tuple[asyncio.Future[pull.Outcome], float]] = OrderedDict()
        self._sequence = 0
        self._over = False

    @property
    def stalled(self) -> bool:
        """Whether the hub owes an answer for too long."""
        if not self._asked:
            return False
        _, asked_at = next(iter(self._asked.values()))
        return asyncio.get_running_loop().time() - asked_at > _STALLED_SECONDS

    def ask(self, request: pull.ExchangeRequest) -> tuple[int, asyncio.Future[pull.Outcome]]:
        """Sends a frame; its number, and the answer to wait for. Raises BrokerDown if the hub has
        fallen silent.
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
        """Sends a frame that has no answer."""
        if not self._over:
            self._outbox.append(request)
            self._wake.set()

    async def run(self) -> None:
        """Reads and writes until the stream ends. Raises what the stream raises."""
        writing = asyncio.get_running_loop().create_task(self._write())
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                for frame in response.batch or (response,):
                    if frame.WhichOneof("frame") == "delivery":
                        self._on_delivery(self, frame.delivery)
                    else:
                        self._answer(frame)
        finally:
            self._over = True
            writing.cancel()
            self._call.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            self._fail_all()

    def _answer(self, response: pull.ExchangeResponse) -> None:
        answer, _ = self._asked.pop(response.sequence, (None, 0.0))
        if answer is not None and not answer.done():
            answer.set_result(response.outcome)

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
            if not answer.done():
                answer.set_exception(
                    BrokerDown(
                        "the connection to the router was lost before it answered; try again"
                    )
                )
                answer.exception()  # seen, even if nobody waits for it any more
