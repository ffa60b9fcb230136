"""Serves the two RPCs of the Open Inference Protocol that call models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from services.api_gateway.grpc_door import message_limits
from services.api_gateway.upstream.model_calls import ModelCalls
from services.api_gateway.upstream.replies import ModelReply
from services.chassis import context, rpc_status
from services.chassis.context import CallContext
from services.chassis.rpc.guard import bounded
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire import open_inference
from stellwerk.wire.errors import InvalidInput, ServiceError, Unavailable
from stellwerk.wire.open_inference import FINAL, InferRequest

# The most requests of one stream without their final reply; the next is read when one has ended.
MAX_CONCURRENT = 512
# The metadata key with which a caller asks for errors as the stream's status instead of messages.
_ERRORS_AS_STATUS = "triton_grpc_error"
_REQUEST: Any = inference.ModelInferRequest.DESCRIPTOR


class GrpcInference:
    """Handlers for ModelInfer and ModelStreamInfer, bytes in and bytes out."""

    def __init__(self, calls: ModelCalls, request_seconds: float) -> None:
        """Bounds each request of a stream to `request_seconds`; the stream may stay open longer."""
        self._calls = calls
        self._request_seconds = request_seconds

    @bounded
    async def infer(self, data: bytes, _: Any) -> bytes:
        """Serves ModelInfer: returns the response to one request."""
        request = open_inference.read(_parse(data))
        reply = await self._calls.call(request, _current())
        return open_inference.serialise(request, reply.model_version, reply.outputs)

    async def stream_infer(
        self, requests: AsyncIterable[bytes], grpc_context: Any
    ) -> AsyncGenerator[bytes]:
        """Serves ModelStreamInfer: yields replies in the order in which they arrive.

        An error ends its request, not the stream.
        """
        given = dict(grpc_context.invocation_metadata() or ())
        stream = _Stream(
            self._calls, _current(), self._request_seconds, given.get(_ERRORS_AS_STATUS) == "true"
        )
        reading = asyncio.create_task(stream.read(requests))
        try:
            async for message in stream.messages():
                yield message.SerializeToString()
        finally:
            reading.cancel()
            stream.close()


class _Stream:
    """Serves the requests of one stream concurrently, and queues their replies."""

    def __init__(
        self, calls: ModelCalls, call: CallContext, request_seconds: float, errors_as_status: bool
    ) -> None:
        self._calls = calls
        self._call = call
        self._errors_as_status = errors_as_status
        self._request_seconds = request_seconds
        self._room = asyncio.Semaphore(MAX_CONCURRENT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: asyncio.Queue[inference.ModelStreamInferResponse | ServiceError | None] = (
            asyncio.Queue()
        )

    async def read(self, requests: AsyncIterable[bytes]) -> None:
        """Begins each request as it arrives, MAX_CONCURRENT at a time."""
        try:
            async for data in requests:
                await self._room.acquire()
                task = asyncio.create_task(self._serve(data))
                self._tasks.add(task)
                task.add_done_callback(self._done)
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._out.put_nowait(None)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def messages(self) -> AsyncGenerator[inference.ModelStreamInferResponse]:
        """Yields the replies until the caller ended its side and the last request has ended.

        Raises a ServiceError that is to end the stream.
        """
        while (item := await self._out.get()) is not None:
            if isinstance(item, ServiceError):
                raise item
            yield item

    def close(self) -> None:
        """Cancels the requests: the caller is gone, or an error ended the stream."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, data: bytes) -> None:
        message = inference.ModelInferRequest()
        try:
            message = _parse(data)
            request = open_inference.read(message)
            async for reply in self._calls.stream(request, self._call_of_request()):
                response = _response(request, reply)
                if response is not None:
                    self._out.put_nowait(response)
        except Exception as exc:
            self._send_error(rpc_status.as_service_error(exc, self._call.request_id), message)

    def _call_of_request(self) -> CallContext:
        """Returns a call for one request, with the stream's caller and a deadline of its own."""
        call, deadline = self._call, time.monotonic() + self._request_seconds
        return CallContext(
            method=call.method,
            request_id=context.new_request_id(),
            peer=call.peer,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            token=call.token,
            principal=call.principal,
            deadline=deadline if call.deadline is None else min(deadline, call.deadline),
        )

    def _send_error(self, error: ServiceError, request: inference.ModelInferRequest) -> None:
        if self._errors_as_status:
            self._out.put_nowait(error)
            return
        about = inference.ModelInferResponse(model_name=request.model_name, id=request.id)
        about.parameters[FINAL].bool_param = True
        message = inference.ModelStreamInferResponse(
            error_message=error.message, infer_response=about
        )
        self._out.put_nowait(message)


def _response(
    request: InferRequest, reply: ModelReply
) -> inference.ModelStreamInferResponse | None:
    """Returns the reply as a message of the stream, None for one that the caller does not get.

    A final reply without outputs goes only to a caller that asked for it.
    """
    if reply.final and not reply.outputs and not request.empty_final:
        return None
    response = open_inference.write(request, reply.model_version, reply.outputs)
    response.parameters[FINAL].bool_param = reply.final
    return inference.ModelStreamInferResponse(infer_response=response)


def _parse(data: bytes) -> inference.ModelInferRequest:
    message_limits.check(data, _REQUEST)
    try:
        return inference.ModelInferRequest.FromString(data)
    except Exception:
        raise InvalidInput("the message is not a ModelInferRequest") from None


def _current() -> CallContext:
    call = context.current()
    if call is None:
        raise Unavailable("no call is being served here")
    return call
