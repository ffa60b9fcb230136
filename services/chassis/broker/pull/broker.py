"""The broker port over the router's hub: one gRPC stream, opened anew when it ends.

After a reconnect all declared queues and all consumers are set up again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from services.chassis import background
from services.chassis.broker.port import Consumer, Depth, Handler, Message
from services.chassis.broker.pull import frames as pull_frames
from services.chassis.broker.pull.consumer import PullConsumer
from services.chassis.broker.pull.results import check
from services.chassis.broker.pull.session import Session
from services.chassis.broker.received import Handling, Received
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.job.v1 import pull_service_pb2_grpc
from stellwerk.wire.errors import BrokerDown, ServiceError, TooLarge
from stellwerk.wire.topology import QueueSpec

# Seconds that the router gets to answer a declaration, an inspection or a new consumer.
_CALL_SECONDS = 5.0
# Seconds of an outage in which callers wait for the reconnect; later ones get BrokerDown at once.
_GRACE_SECONDS = 2.0
# Bytes. The router's gRPC server takes 64 MiB by default; a larger frame would end the stream for
# all its users, so a larger body is refused before it is sent.
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
            await background.end(self._task)
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
        """Returns the hub's outcome if it is OK.

        Raises the error for any other result, BrokerDown if there is none within `timeout` s.
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
        """Returns the next session. Raises BrokerDown once the outage has lasted two seconds."""
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
        await background.run_forever(self._connect, self._failed, expected=ServiceError)

    async def _connect(self, succeeded: Callable[[], None]) -> None:
        """Opens a stream and serves it until it ends. Raises the ServiceError it ends with."""
        session = Session(await self._stub.Exchange(), self._deliver)
        opening = asyncio.get_running_loop().create_task(self._open(session, succeeded))
        serving = asyncio.get_running_loop().create_task(session.run())
        try:
            await asyncio.wait({opening, serving}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
            await serving
        finally:
            await background.end(opening, serving)
        raise BrokerDown("the router ended the stream")

    async def _open(self, session: Session, succeeded: Callable[[], None]) -> None:
        """Announces the session once the router answers; sets up all queues and consumers."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await session.ask(pull.ExchangeRequest(inspect=""))[1]
        except TimeoutError:
            raise BrokerDown("the router does not answer") from None
        succeeded()
        self._session = session
        self._trouble = ""
        self._up.set()
        _log.info("broker_connected", broker="pull")
        for spec in list(self._declared.values()):
            session.ask(pull.ExchangeRequest(declare=pull_frames.declaration(spec)))
        await asyncio.gather(*(consumer.begin_again(session) for consumer in list(self._consumers)))

    def _failed(self, error: Exception, repeats: bool) -> None:
        established = self._session is not None
        self._session = None
        self._up.clear()
        self._trouble = "the connection to the router is down and is being reconnected"
        if established:
            self._down_since = asyncio.get_running_loop().time()
            _log.warning("broker_lost", broker="pull", cause=str(error))
            for callback in self._callbacks:
                callback(str(error))

    def _deliver(self, session: Session, frame: pull.Delivery) -> None:
        handler = session.handlers.get(frame.consumer)
        delivery = Received(
            pull_frames.from_frame(frame.message),
            frame.redelivered,
            frame.routing_key,
            frame.tag,
            session.settle if frame.tag else None,
        )
        if handler is None:
            delivery.nack(requeue=True)  # sent before the hub knew that its consumer is cancelled
        else:
            self._handling.run(handler, delivery)
