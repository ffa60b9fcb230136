"""Serves the hub over gRPC, one stream per process.

A stream that reads too slowly first gets nothing more from queues, then is ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from services.chassis.broker.pull import frames as pull_frames
from services.chassis.broker.pull.hub import Dispatch, Hub
from services.chassis.broker.pull.results import Result
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.job.v1 import pull_service_pb2_grpc
from stellwerk.wire.errors import Overloaded

# Bytes of unread message bodies. A stream with more gets nothing from queues until half is read.
_PAUSE_BYTES = 16 * 1024 * 1024
# Unread frames. Events and outcomes cannot wait in a queue, so a stream with more is ended.
_MOST_FRAMES = 50_000


class PullServicer(pull_service_pb2_grpc.PullServiceServicer):
    """Serves one hub to many streams."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._streams: set[_Outgoing] = set()

    async def Exchange(
        self, request_iterator: AsyncIterator[pull.ExchangeRequest], context: object
    ) -> AsyncGenerator[pull.ExchangeResponse]:
        """Serves one process: performs its requests, yields outcomes and deliveries."""
        outgoing = _Outgoing(self._hub)
        self._streams.add(outgoing)
        reading = asyncio.get_running_loop().create_task(
            _read(self._hub, request_iterator, outgoing)
        )
        reading.add_done_callback(lambda _: outgoing.end())
        try:
            async for frame in outgoing.frames():
                yield frame
        finally:
            self._streams.discard(outgoing)
            reading.cancel()
            self._hub.disconnect(outgoing.connection, time.monotonic())
            await asyncio.gather(reading, return_exceptions=True)

    async def end_streams(self) -> None:
        """Ends every stream, for a server that stops; the processes connect again."""
        for outgoing in self._streams:
            outgoing.end()


class _Outgoing:
    """A queue of the frames for one process; the hub's sink for it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.connection = hub.connect(self)
        self._frames: deque[pull.ExchangeResponse] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._ended = False

    def deliver(self, dispatch: Dispatch) -> bool:
        """Adds a delivery; see `hub.Sink`."""
        self._bytes += len(dispatch.message.body)
        self.add(pull_frames.delivery(dispatch))
        return self._bytes < _PAUSE_BYTES

    def add(self, frame: pull.ExchangeResponse) -> None:
        """Adds a frame."""
        self._frames.append(frame)
        self._wake.set()

    def end(self) -> None:
        """Ends the stream."""
        self._ended = True
        self._wake.set()

    async def frames(self) -> AsyncGenerator[pull.ExchangeResponse]:
        """Yields the frames in order until the stream is ended. Raises Overloaded beyond 50,000."""
        while not self._ended:
            while self._frames:
                if len(self._frames) > _MOST_FRAMES:
                    raise Overloaded("the stream is not read fast enough; connect again")
                frames = pull_frames.gathered(self._frames, _size)
                yield frames[0] if len(frames) == 1 else pull.ExchangeResponse(batch=frames)
                self._bytes -= sum(map(_size, frames))
                if self._bytes < _PAUSE_BYTES // 2:
                    self._hub.resume(self.connection, time.monotonic())
            self._wake.clear()
            if not self._ended and not self._frames:
                await self._wake.wait()


async def _read(
    hub: Hub, requests: AsyncIterator[pull.ExchangeRequest], outgoing: _Outgoing
) -> None:
    async for request in requests:
        for frame in request.batch or (request,):
            outcome = _perform(hub, outgoing.connection, frame, time.monotonic())
            if outcome is not None:
                outgoing.add(pull.ExchangeResponse(sequence=frame.sequence, outcome=outcome))


def _size(frame: pull.ExchangeResponse) -> int:
    return len(frame.delivery.message.body)


def _perform(
    hub: Hub, connection: int, request: pull.ExchangeRequest, now: float
) -> pull.Outcome | None:
    """Performs a request; returns its outcome, None for a request that has none."""
    result = Result.OK
    match request.WhichOneof("frame"):
        case "publish":
            result = _publish(hub, request.publish, now)
        case "settle":
            hub.settle(connection, request.settle.tag, now, ack=request.settle.ack)
            return None
        case "declare":
            result = hub.declare(connection, pull_frames.spec_of(request.declare), now)
        case "consume":
            consume = request.consume
            if consume.topic:
                hub.subscribe(connection, request.sequence, consume.queue)
            else:
                result = hub.consume(
                    connection,
                    request.sequence,
                    consume.queue,
                    consume.prefetch,
                    now,
                    acks=not consume.settled,
                )
        case "cancel":
            hub.cancel(connection, request.cancel, now)
        case "inspect":
            depth = hub.inspect(request.inspect, now)
            return pull.Outcome(
                result=pull.Outcome.RESULT_OK, messages=depth.messages, consumers=depth.consumers
            )
        case _:
            return pull.Outcome()
    return pull.Outcome(result=pull_frames.NUMBERS[result])


def _publish(hub: Hub, publish: pull.Publish, now: float) -> Result:
    message = pull_frames.from_frame(publish.message)
    if publish.topic:
        hub.publish_event(publish.routing_key, message)
        return Result.OK
    return hub.publish(publish.routing_key, message, now, mandatory=publish.mandatory)
