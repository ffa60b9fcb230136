"""The two RPCs of the Open Inference Protocol that call models, as the gRPC door serves them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from services.api_gateway.grpc_door import message_limits as structure
from services.api_gateway.upstream.model_calls import Answered, Calls
from services.chassis import context, rpc_status
from services.chassis.context import CallContext
from services.chassis.rpc.guard import bounded
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire import open_inference
from stellwerk.wire.errors import InvalidInput, ServiceError, Unavailable
from stellwerk.wire.open_inference import FINAL, InferRequest

# Requests of one stream that wait for answers; beyond, its next request is not read yet.
MAX_IN_HAND = 512
# With this metadata an error ends the stream with its status instead of being told on it.
_AS_STATUS = "triton_grpc_error"
_REQUEST: Any = inference.ModelInferRequest.DESCRIPTOR


class GrpcInference:
    """Bytes in, bytes out: the messages are read here and nowhere on the way."""

    def __init__(self, calls: Calls, request_seconds: float) -> None:
        """A request on a stream may take `request_seconds` at most; the stream itself may stay open
        for longer.
        """
        self._calls, self._request_seconds = calls, request_seconds

    @bounded
    async def infer(self, data: bytes, _: Any) -> bytes:
        """ModelInfer."""
        ask = open_inference.read(_parse(data))
        answered = await self._calls.call(ask, _current())
        return open_inference.write(
            ask, answered.model_version, answered.outputs
        ).SerializeToString()

    async def stream_infer(
        self, requests: AsyncIterable[bytes], grpc_context: Any
    ) -> AsyncGenerator[bytes]:
        """ModelStreamInfer: answers in the order in which they come; an error ends its request, not
        the stream.
        """
        given = dict(grpc_context.invocation_metadata() or ())
        stream = _Stream(
            self._calls, _current(), self._request_seconds, given.get(_AS_STATUS) == "true"
        )
        reading = asyncio.create_task(stream.read(requests))
        try:
            async for message in stream.messages():
                yield message.SerializeToString()
        finally:
            reading.cancel()
            stream.close()


class _Stream:
    """The requests of one stream that are in hand, and their answers."""

    def __init__(
        self, calls: Calls, call: CallContext, request_seconds: float, errors_as_status: bool
    ) -> None:
        self._calls, self._call, self._errors_as_status = calls, call, errors_as_status
        self._request_seconds = request_seconds
        self._room = asyncio.Semaphore(MAX_IN_HAND)
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: asyncio.Queue[inference.ModelStreamInferResponse | ServiceError | None] = (
            asyncio.Queue()
        )

    async def read(self, requests: AsyncIterable[bytes]) -> None:
        """Begins every request as it comes."""
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
        """Every answer, until the last request is answered after the caller ended its side."""
        while (item := await self._out.get()) is not None:
            if isinstance(item, ServiceError):
                raise item
            yield item

    def close(self) -> None:
        """The caller is gone or has been told the error that ends everything."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, data: bytes) -> None:
        request = inference.ModelInferRequest()
        try:
            request = _parse(data)
            ask = open_inference.read(request)
            async for answered in self._calls.stream(ask, self._one_of_many()):
                message = _response(ask, answered)
                if message is not None:
                    self._out.put_nowait(message)
        except Exception as exc:
            self._tell(rpc_status.as_service_error(exc, self._call.request_id), request)

    def _one_of_many(self) -> CallContext:
        """A call of its own for a request, with the stream's caller."""
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

    def _tell(self, error: ServiceError, request: inference.ModelInferRequest) -> None:
        if self._errors_as_status:
            self._out.put_nowait(error)
            return
        about = inference.ModelInferResponse(model_name=request.model_name, id=request.id)
        about.parameters[FINAL].bool_param = True
        message = inference.ModelStreamInferResponse(
            error_message=error.message, infer_response=about
        )
        self._out.put_nowait(message)


def _response(ask: InferRequest, answered: Answered) -> inference.ModelStreamInferResponse | None:
    """The answer as the stream tells it; None for an end without outputs that nobody asked to be
    told.
    """
    ends_empty = answered.final and not answered.outputs
    if ends_empty and not ask.empty_final:
        return None
    response = open_inference.write(ask, answered.model_version, answered.outputs)
    response.parameters[FINAL].bool_param = answered.final
    return inference.ModelStreamInferResponse(infer_response=response)


def _parse(data: bytes) -> inference.ModelInferRequest:
    structure.check(data, _REQUEST)
    try:
        return inference.ModelInferRequest.FromString(data)
    except Exception:
        raise InvalidInput("the message is not a ModelInferRequest") from None


def _current() -> CallContext:
    call = context.current()
    if call is None:
        raise Unavailable("no call is being served here")
    return call
