"""Calls models: sends a request and its caller over the streams to the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from prometheus_client import CollectorRegistry

from services.api_gateway.upstream.call_groups import CallForms
from services.api_gateway.upstream.call_stream import CallStream, OpenStream
from services.api_gateway.upstream.replies import Caller, GroupReply, ModelReply
from services.chassis.context import CallContext
from services.chassis.futures import settle
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import columns, tensors
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.open_inference import InferRequest

# Bytes of tensors from which a request goes over a stream of its own: a small request must not
# wait behind megabytes.
LARGE_BYTES = 256 * 1024


class _OneReply:
    """The caller of a request with one reply."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[ModelReply] = asyncio.get_running_loop().create_future()

    def replied(self, reply: ModelReply) -> None:
        settle(self.reply, reply)

    def replied_in_group(self, group: GroupReply, index: int) -> None:
        try:
            settle(self.reply, group.of(index))
        except ServiceError as error:
            settle(self.reply, error)

    def failed(self, error: ServiceError) -> None:
        settle(self.reply, error)


class _Replies:
    """The caller of a request with several replies."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[ModelReply | ServiceError] = asyncio.Queue()
        self.replied = self.arrived.put_nowait
        self.failed = self.arrived.put_nowait

    def replied_in_group(self, group: GroupReply, index: int) -> None:
        try:
            self.replied(group.of(index))
        except ServiceError as error:
            self.failed(error)


class ModelCalls:
    """Calls models through the router, over one stream for small requests and one for large."""

    def __init__(self, open_stream: OpenStream, metrics: CollectorRegistry | None = None) -> None:
        # The stream of small requests, for callers that need no task.
        self.small = CallStream(open_stream)
        self._large = CallStream(open_stream)
        # The forms of calls that may share groups.
        self.forms = CallForms(metrics)

    @property
    def problem(self) -> str:
        """Returns why no call can be made now; "" if calls can be made."""
        return self.small.problem or self._large.problem

    async def run(self) -> None:
        """Keeps the streams open until it is cancelled."""
        await asyncio.gather(self.small.run(), self._large.run())

    async def call(self, request: InferRequest, call: CallContext) -> ModelReply:
        """Sends a request that has one reply and returns that.

        Raises the error that the call ended with; DeadlinePassed after the shorter of the caller's
        deadline and the request's own timeout.
        """
        caller = _OneReply()
        stream, id = await self._begin(request, call, caller)
        try:
            return await caller.reply
        except asyncio.CancelledError:
            stream.forget(id)
            raise

    async def stream(self, request: InferRequest, call: CallContext) -> AsyncGenerator[ModelReply]:
        """Sends a request that may have several replies and yields each as it arrives.

        Closing the generator cancels the call. Raises as `call` does.
        """
        request.work.stream = True
        caller = _Replies()
        stream, id = await self._begin(request, call, caller)
        try:
            final = False
            while not final:
                item = await caller.arrived.get()
                if isinstance(item, ServiceError):
                    raise item
                final = item.final
                yield item
        finally:
            stream.forget(id)

    async def _begin(
        self, request: InferRequest, call: CallContext, caller: Caller
    ) -> tuple[CallStream, int]:
        """Sends the request; returns the stream that it went by and its id there."""
        # Held no longer than this: whoever waits for a reply must not hold a copy of the inputs.
        data = tensors.data_of(request.work.inputs)
        stream, seconds = self._stream_for(request, data, call)
        if not stream.is_open:
            await stream.wait_open(seconds)
        return stream, self._send(stream, request, data, call, seconds, caller)

    def _send(
        self,
        stream: CallStream,
        request: InferRequest,
        data: Sequence[bytes],
        call: CallContext,
        seconds: float,
        caller: Caller,
    ) -> int:
        work = request.work
        if columns.may_join(work, data):
            form = self.forms.of(request)
            return stream.send_member(form, data, call, seconds, caller)
        message = messages.Call(
            model=request.model,
            version=request.version,
            timeout_ms=max(1, int(seconds * 1000)),
            request_id=call.request_id,
            traceparent=call.traceparent,
            peer=call.peer,
        )
        return stream.send(message, work, call.token, seconds, caller)

    def _stream_for(
        self, request: InferRequest, data: Sequence[bytes], call: CallContext
    ) -> tuple[CallStream, float]:
        """Returns the stream for the request's size, and the seconds that the call has."""
        seconds = call.onward()
        if request.timeout_us:
            seconds = min(seconds, request.timeout_us / 1e6)
        large = sum(map(len, data)) > LARGE_BYTES
        return self._large if large else self.small, seconds
