"""Calls models: sends a request and its caller over the streams to the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial

from services.api_gateway.upstream.call_stream import CallStream, OpenStream
from services.chassis.context import CallContext
from services.chassis.futures import settle
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import ServiceError, from_work_error
from stellwerk.wire.open_inference import InferRequest

# Bytes of tensors from which a request goes over a stream of its own: a small request must not
# wait behind megabytes.
LARGE_BYTES = 256 * 1024


@dataclass(slots=True)
class ModelReply:
    """One reply of a model: the resource name of the version that gave it, and its outputs.

    `final` marks a request's last reply, which alone may have no outputs.
    """

    model_version: str
    outputs: Sequence[tensor_pb2.Tensor]
    final: bool


class ModelCalls:
    """Calls models through the router, over one stream for small requests and one for large."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._small = CallStream(open_stream)
        self._large = CallStream(open_stream)

    @property
    def problem(self) -> str:
        """Returns why no call can be made now; "" if calls can be made."""
        return self._small.problem or self._large.problem

    async def run(self) -> None:
        """Keeps the streams open until it is cancelled."""
        await asyncio.gather(self._small.run(), self._large.run())

    async def call(self, request: InferRequest, call: CallContext) -> ModelReply:
        """Sends a request that has one reply and returns that.

        Raises the error that the call ended with; DeadlinePassed after the shorter of the caller's
        deadline and the request's own timeout.
        """
        stream, message, seconds = self._prepare(request, call)
        if not stream.is_open:
            await stream.wait_open(seconds)
        answer: asyncio.Future[messages.Answer] = asyncio.get_running_loop().create_future()
        id = stream.send(message, request.work, call.token, seconds, partial(settle, answer))
        try:
            return _reply(await answer)
        except asyncio.CancelledError:
            stream.forget(id)
            raise

    async def stream(self, request: InferRequest, call: CallContext) -> AsyncGenerator[ModelReply]:
        """Sends a request that may have several replies and yields each as it arrives.

        Closing the generator cancels the call. Raises as `call` does.
        """
        request.work.stream = True
        stream, message, seconds = self._prepare(request, call)
        if not stream.is_open:
            await stream.wait_open(seconds)
        arrived: asyncio.Queue[messages.Answer | ServiceError] = asyncio.Queue()
        id = stream.send(message, request.work, call.token, seconds, arrived.put_nowait)
        try:
            final = False
            while not final:
                item = await arrived.get()
                if isinstance(item, ServiceError):
                    raise item
                reply = _reply(item)
                final = reply.final
                yield reply
        finally:
            stream.forget(id)

    def _prepare(
        self, request: InferRequest, call: CallContext
    ) -> tuple[CallStream, messages.Call, float]:
        """Returns the stream for the request's size, the call message, and its seconds."""
        seconds = call.onward()
        if request.timeout_us:
            seconds = min(seconds, request.timeout_us / 1e6)
        message = messages.Call(
            model=request.model,
            version=request.version,
            timeout_ms=max(1, int(seconds * 1000)),
            request_id=call.request_id,
            traceparent=call.traceparent,
            peer=call.peer,
        )
        large = sum(len(tensor.data) for tensor in request.work.inputs) > LARGE_BYTES
        return self._large if large else self._small, message, seconds


def _reply(answer: messages.Answer) -> ModelReply:
    reply = answer.reply
    if reply.HasField("error"):
        raise from_work_error(reply.error)
    return ModelReply(answer.model_version, reply.outputs, not reply.more)
