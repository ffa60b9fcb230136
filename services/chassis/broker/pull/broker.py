"""The broker port over a router's hub: one gRPC stream that comes back, with everything declared
and consumed on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from services.chassis.broker.backoff import Backoff
from services.chassis.broker.port import Consumer, Depth, Handler, Message
from services.chassis.broker.pull import frames as pull_frames
from services.chassis.broker.pull.consumer import PullConsumer
from services.chassis.broker.pull.servicer import PullServicer
from services.chassis.broker.pull.session import Session
from services.chassis.broker.pull.verdict import check
from services.chassis.broker.received import Handling, Received, Settle
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.job.v1 import pull_service_pb2_grpc
from stellwerk.wire.errors import BrokerDown, ServiceError, TooLarge
from stellwerk.wire.topology import QueueSpec

__all__ = ["PullBroker", "PullServicer"]

_CALL_SECONDS = 5.0
_GRACE_SECONDS = 2.0
# The router's gRPC server takes 64 MiB by default; a larger frame would end the stream for
# everybody on it.
_LARGEST_BODY = 63 * 1024 * 1024

_log = structlog.get_logger("broker")


class PullBroker:
    """See `port.Broker`. `channel` is a service channel to the router."""

    def __init__(self, channel: Any) -> None:
        self._stub = pull_service_pb2_grpc.PullServiceStub(channel)
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._down_since = 0.0
        self._trouble = "the router is not connected yet"
        self._declared: dict[str, QueueSpec] = {}
        self._consumers: set[PullConsumer] = set()
        self._callbacks: list[Callable[[str], None]] = []
        self._handling = Handling()
        self._posting: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def description(self) -> str:
        return "pull"

    @property
    def problem(self) -> str:
        if self._session is not None and self._session.stalled:
            return "the router does not answer"
        return self._trouble

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._down_since = loop.time()
        self._task = loop.create_task(self._keep())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._handling.stop()

    async def declare(self, queue: QueueSpec) -> None:
        await self._ask_about(
            queue.name, pull.ExchangeRequest(declare=pull_frames.declaration(queue)), _CALL_SECONDS
        )
        self._declared[queue.name] = queue

    async def publish(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> None:
        await self._publish(pull.Publish(routing_key=queue, mandatory=mandatory), message, timeout)

    def post(
        self, queue: str, message: Message, *, mandatory: bool = True, timeout: float = 5.0
    ) -> asyncio.Future[None]:
        publishing = self.publish(queue, message, mandatory=mandatory, timeout=timeout)
        posted = asyncio.get_running_loop().create_task(publishing)
        self._posting.add(posted)
        posted.add_done_callback(self._posting.discard)
        return posted

    async def publish_event(
        self, routing_key: str, message: Message, *, timeout: float = 5.0
    ) -> None:
        await self._publish(pull.Publish(routing_key=routing_key, topic=True), message, timeout)

    async def consume(
        self, queue: QueueSpec, handler: Handler, *, prefetch: int, acks: bool = True
    ) -> Consumer:
        frame = pull.Consume(queue=queue.name, prefetch=prefetch, settled=not acks)
        return await self._started(PullConsumer(queue, frame, handler, self._consumers.discard))

    async def subscribe(self, pattern: str, handler: Handler) -> Consumer:
        frame = pull.Consume(queue=pattern, topic=True)
        return await self._started(PullConsumer(None, frame, handler, self._consumers.discard))

    async def inspect(self, queue: str) -> Depth:
        outcome = await self._ask_about(queue, pull.ExchangeRequest(inspect=queue), _CALL_SECONDS)
        return Depth(outcome.messages, outcome.consumers)

    def on_lost(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def _publish(self, frame: pull.Publish, message: Message, timeout: float) -> None:
        if len(message.body) > _LARGEST_BODY:
            raise TooLarge(
                f"the broker takes messages of at most {_LARGEST_BODY} bytes; send the payload by"
                " reference",
                limit=_LARGEST_BODY,
            )
        frame.message.CopyFrom(pull_frames.to_frame(message))
        await self._ask_about(frame.routing_key, pull.ExchangeRequest(publish=frame), timeout)

    async def _ask_about(
        self, queue: str, request: pull.ExchangeRequest, timeout: float
    ) -> pull.Outcome:
        """The hub's answer. Raises what it means when it is not OK, and BrokerDown when there is
        none in time.
        """
        try:
            async with asyncio.timeout(timeout):
                session = self._session or await self._reconnected()
                outcome = await session.ask(request)[1]
        except TimeoutError:
            raise self._down() from None
        check(pull_frames.RESULTS[outcome.result], queue)
        return outcome

    async def _reconnected(self) -> Session:
        """The next session, if it comes soon; an outage that has lasted is told at once."""
        lasted = asyncio.get_running_loop().time() - self._down_since
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(_GRACE_SECONDS - lasted, 0)):
                await self._up.wait()
        if self._session is None:
            raise self._down()
        return self._session

    def _down(self) -> BrokerDown:
        return BrokerDown(f"{self.problem or 'the router does not answer'}; try again shortly")

    async def _started(self, consumer: PullConsumer) -> PullConsumer:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._up.wait()
                if self._session is None:
                    raise self._down()
                await consumer.begin(self._session)
        except TimeoutError:
            raise self._down() from None
        self._consumers.add(consumer)
        return consumer

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            reason = "the router ended the stream"
            try:
                session = Session(await self._stub.Exchange(), self._deliver)
                async with asyncio.TaskGroup() as group:
                    opening = group.create_task(self._open(session, backoff))
                    await session.run()
                    opening.cancel()
            except* ServiceError as errors:
                reason = str(errors.exceptions[0])
            self._lost(reason)
            await asyncio.sleep(backoff.next())

    async def _open(self, session: Session, backoff: Backoff) -> None:
        """Waits for the first answer, announces the session, and brings back what was declared and
        consumed.
        """
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await session.ask(pull.ExchangeRequest(inspect=""))[1]
        except TimeoutError:
            raise BrokerDown("the router does not answer") from None
        backoff.reset()
        self._session, self._trouble = session, ""
        self._up.set()
        _log.info("broker connected", broker="pull")
        for spec in list(self._declared.values()):
            session.ask(pull.ExchangeRequest(declare=pull_frames.declaration(spec)))
        await asyncio.gather(*(consumer.begin_again(session) for consumer in list(self._consumers)))

    def _lost(self, reason: str) -> None:
        established, self._session = self._session is not None, None
        self._up.clear()
        self._trouble = "the connection to the router is down and is being reconnected"
        if established:
            self._down_since = asyncio.get_running_loop().time()
            _log.warning("broker lost", broker="pull", cause=reason)
            for callback in self._callbacks:
                callback(reason)

    def _deliver(self, session: Session, frame: pull.Delivery) -> None:
        handler = session.handlers.get(frame.consumer)
        settle = _settler(session, frame.tag) if frame.tag else None
        delivery = Received(
            pull_frames.from_frame(frame.message), frame.redelivered, frame.routing_key, settle
        )
        if handler is None:
            delivery.nack(requeue=True)  # it was on its way when its consumer was cancelled
        else:
            self._handling.run(handler, delivery)


def _settler(session: Session, tag: int) -> Settle:
    def settle(ack: bool, requeue: bool) -> None:
        session.tell(pull.ExchangeRequest(settle=pull.Settle(tag=tag, ack=ack or not requeue)))

    return settle
