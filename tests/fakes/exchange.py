"""The router's end of the stream that carries calls: every call goes to a script, its answers back
on the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc

from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import columns
from stellwerk.wire.errors import ServiceError, to_work_error

METHOD = "/stellwerk.router.v1.CallService/Exchange"
VERSION = "buckets/default/models/m/versions/3"

# Takes a call and its caller's token; gives its answers as they are to be sent. The error that ends
# it may be one.
Serve = Callable[[messages.Call, str], AsyncGenerator[work_pb2.WorkReply | ServiceError, None]]


def handler(serve: Serve) -> Any:
    """The handler of Exchange for a gRPC server."""

    async def exchange(frames: Any, _: Any) -> AsyncIterator[messages.ExchangeResponse]:
        stream = _Stream(serve)
        reading = asyncio.create_task(stream.read(frames))
        try:
            while (frame := await stream.out.get()) is not None:
                yield frame
        finally:
            reading.cancel()
            for task in stream.tasks.values():
                task.cancel()

    return grpc.stream_stream_rpc_method_handler(
        exchange, messages.ExchangeRequest.FromString, messages.ExchangeResponse.SerializeToString
    )


def calls_of(frame: messages.ExchangeRequest) -> list[messages.Call]:
    """The members of a frame's groups as single calls, in their order."""
    return [
        messages.Call(
            id=id,
            credential=group.credential,
            model=group.model,
            version=group.version,
            work=columns.member(group.work, index, len(group.ids)),
            timeout_ms=group.timeouts_ms[index],
            request_id=group.request_ids[index],
            traceparent=group.traceparents[index] if group.traceparents else "",
            peer=group.peers[index if len(group.peers) > 1 else 0],
        )
        for group in frame.groups
        for index, id in enumerate(group.ids)
    ]


class _Stream:
    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tokens: dict[int, str] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.out: asyncio.Queue[messages.ExchangeResponse | None] = asyncio.Queue()
        # The greeting: from now on calls are taken.
        self.out.put_nowait(messages.ExchangeResponse())

    async def read(self, frames: Any) -> None:
        async for frame in frames:
            self._tokens |= {credential.id: credential.token for credential in frame.credentials}
            for call in [*frame.calls, *calls_of(frame)]:
                self.tasks[call.id] = asyncio.create_task(
                    self._answer(call, self._tokens[call.credential])
                )
            for id in frame.cancelled:
                self.tasks[id].cancel()
        self.out.put_nowait(None)

    async def _answer(self, call: messages.Call, token: str) -> None:
        try:
            async for item in self._serve(call, token):
                self._tell(call, item)
        except ServiceError as error:
            self._tell(call, error)

    def _tell(self, call: messages.Call, item: work_pb2.WorkReply | ServiceError) -> None:
        reply = (
            work_pb2.WorkReply(error=to_work_error(item))
            if isinstance(item, ServiceError)
            else item
        )
        answer = messages.Answer(id=call.id, model_version=VERSION, reply=reply)
        self.out.put_nowait(messages.ExchangeResponse(answers=[answer]))
