"""Calls of models: an ask and its caller in, answers out, over the streams to the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial

from services.api_gateway.upstream.call_stream import CallStream, Open
from services.chassis.context import CallContext
from services.chassis.futures import settle
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.deadlines import onward
from stellwerk.wire.errors import ServiceError, from_work_error
from stellwerk.wire.open_inference import InferRequest

# Calls above this many bytes have a stream of their own, so that small ones do not queue behind
# megabytes.
LARGE_BYTES = 256 * 1024


@dataclass(slots=True)
class Answered:
    """One answer: which version gave it, and the outputs; those of a last answer may be none."""

    model_version: str
    outputs: Sequence[tensor_pb2.Tensor]
    final: bool


class Calls:
    """The way to the router for calls."""

    def __init__(self, open_stream: Open) -> None:
        self._small, self._large = CallStream(open_stream), CallStream(open_stream)

    @property
    def problem(self) -> str:
        """Why no call can be made now; "" if calls can."""
        return self._small.problem or self._large.problem

    async def run(self) -> None:
        """Keeps the streams open."""
        await asyncio.gather(self._small.run(), self._large.run())

    async def call(self, ask: InferRequest, call: CallContext) -> Answered:
        """Calls a model once. Raises the error it ended with, DeadlinePassed at the latest of the
        two timeouts.
        """
        stream, message, seconds = self._prepare(ask, call)
        if not stream.is_open:
            await stream.opened(seconds)
        answered: asyncio.Future[messages.Answer] = asyncio.get_running_loop().create_future()
        id = stream.send(message, ask.work, call.token, seconds, partial(settle, answered))
        try:
            return _answered(await answered)
        except asyncio.CancelledError:
            stream.forget(id)
            raise

    async def stream(self, ask: InferRequest, call: CallContext) -> AsyncGenerator[Answered]:
        """Calls a model that may answer several times; each answer as it comes, the last one with
        `final`.

        Closing the generator cancels the call.
        """
        ask.work.stream = True
        stream, message, seconds = self._prepare(ask, call)
        if not stream.is_open:
            await stream.opened(seconds)
        arrived: asyncio.Queue[messages.Answer | ServiceError] = asyncio.Queue()
        id = stream.send(message, ask.work, call.token, seconds, arrived.put_nowait)
        try:
            final = False
            while not final:
                item = await arrived.get()
                if isinstance(item, ServiceError):
                    raise item
                answer = _answered(item)
                final = answer.final
                yield answer
        finally:
            stream.forget(id)

    def _prepare(
        self, ask: InferRequest, call: CallContext
    ) -> tuple[CallStream, messages.Call, float]:
        seconds = onward(call.remaining())
        if ask.timeout_us:
            seconds = min(seconds, ask.timeout_us / 1e6)
        message = messages.Call(
            model=ask.model,
            version=ask.version,
            timeout_ms=max(1, int(seconds * 1000)),
            request_id=call.request_id,
            traceparent=call.traceparent,
            peer=call.peer,
        )
        large = sum(len(tensor.data) for tensor in ask.work.inputs) > LARGE_BYTES
        return self._large if large else self._small, message, seconds


def _answered(answer: messages.Answer) -> Answered:
    reply = answer.reply
    if reply.HasField("error"):
        raise from_work_error(reply.error)
    return Answered(answer.model_version, reply.outputs, not reply.more)
