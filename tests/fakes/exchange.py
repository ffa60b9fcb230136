"""The router's end of the stream that carries calls: every call goes to a script, its answers back
on the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
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
Tell = Callable[[messages.Call, work_pb2.WorkReply | ServiceError], None]


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
        # Members' answers of this turn, and the sizes of the groups that were answered.
        self._together: list[tuple[messages.Call, work_pb2.WorkReply]] = []
        self.groups: list[int] = []
        # The greeting: from now on calls are taken.
        self.out.put_nowait(messages.ExchangeResponse())

    async def read(self, frames: Any) -> None:
        async for frame in frames:
            self._tokens |= {credential.id: credential.token for credential in frame.credentials}
            for call, tell in [
                *[(call, self._tell) for call in frame.calls],
                *[(call, self._tell_together) for call in calls_of(frame)],
            ]:
                task = self.tasks[call.id] = asyncio.create_task(
                    self._answer(call, self._tokens[call.credential], tell)
                )
                # A task that ended in an exception holds the call.
                task.add_done_callback(partial(self._forget, call.id))
            for id in frame.cancelled:
                if id in self.tasks:
                    self.tasks[id].cancel()
        self.out.put_nowait(None)

    def _forget(self, id: int, _: asyncio.Task[None]) -> None:
        del self.tasks[id]

    async def _answer(self, call: messages.Call, token: str, tell: Tell) -> None:
        try:
            async for item in self._serve(call, token):
                tell(call, item)
        except ServiceError as error:
            tell(call, error)

    def _tell(self, call: messages.Call, item: work_pb2.WorkReply | ServiceError) -> None:
        answer = messages.Answer(id=call.id, model_version=VERSION, reply=_reply(item))
        self.out.put_nowait(messages.ExchangeResponse(answers=[answer]))

    def _tell_together(self, call: messages.Call, item: work_pb2.WorkReply | ServiceError) -> None:
        """Answers a member of a group, with all that are answered alike in the same turn."""
        if not self._together:
            asyncio.get_running_loop().call_soon(self._tell_groups)
        self._together.append((call, _reply(item)))

    def _tell_groups(self) -> None:
        alike: dict[bytes, list[tuple[messages.Call, work_pb2.WorkReply]]] = {}
        for call, reply in self._together:
            form = work_pb2.WorkReply()
            form.CopyFrom(reply)
            for output in form.outputs:
                output.data = b""
            alike.setdefault(form.SerializeToString(), []).append((call, reply))
        self._together.clear()
        for members in alike.values():
            whole = members[0][1]
            for index, output in enumerate(whole.outputs):
                output.data = b"".join([reply.outputs[index].data for _, reply in members])
            answer = messages.AnswerGroup(
                ids=[call.id for call, _ in members], model_version=VERSION, reply=whole
            )
            self.groups.append(len(members))
            self.out.put_nowait(messages.ExchangeResponse(groups=[answer]))


def _reply(item: work_pb2.WorkReply | ServiceError) -> work_pb2.WorkReply:
    if isinstance(item, ServiceError):
        return work_pb2.WorkReply(error=to_work_error(item))
    return item
