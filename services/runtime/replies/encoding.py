"""Encodes replies. Each is serialised as an envelope of one; such envelopes laid end to end are one
envelope of all, so no reply is built or measured twice.

Members of a group are answered together, by one reply to each request that a call was made for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.runtime.execution.batch_call import BatchResult
from services.runtime.execution.stream_call import StreamedAnswer
from services.runtime.replies.response_cache import Outputs
from services.runtime.requests.members import close, open_places
from services.runtime.requests.output_columns import OutputColumn, row_offsets
from services.runtime.requests.request import Group, Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import ServiceError, to_work_error

# Bytes of a reply above which its message object is not reused for the next one: protobuf would
# keep that memory until the last reply of the batch.
_REUSED_BYTES = 64 * 1024


@dataclass(slots=True)
class EncodedReplies:
    """Replies to one message, of which each answers `each` items or members."""

    work: WorkMessage
    frames: list[bytes]
    each: int = 1


class ReplyEncoder:
    """Encodes the replies of one runtime."""

    def __init__(self, runtime: str, frame_bytes: int) -> None:
        """Answers members of a group together as long as their reply has ≤ `frame_bytes` bytes."""
        self._runtime = runtime
        self._frame_bytes = frame_bytes

    def error(self, item_id: str, error: ServiceError, waited: float = 0.0) -> bytes:
        """Returns the reply to an item that no model was called for, after `waited` seconds."""
        reply = self._error(error, waited)
        reply.id = item_id
        return _frame(reply)

    def error_to_members(
        self, group: Group, members: Sequence[int], error: ServiceError, waited: float
    ) -> bytes:
        """Returns the reply to members that no model was called for, after `waited` seconds."""
        return _group_frame(self._error(error, waited), group, members)

    def _error(self, error: ServiceError, waited: float) -> work_pb2.WorkReply:
        return work_pb2.WorkReply(
            error=to_work_error(error),
            runtime=self._runtime,
            queue_ns=max(0, int(waited * 1e9)),
        )

    def streamed(self, request: Request, answer: StreamedAnswer) -> bytes:
        """Returns one of several replies of a streaming method; more follow."""
        return _addressed(
            request,
            work_pb2.WorkReply(
                outputs=[
                    tensor_pb2.Tensor(
                        name=column.name,
                        datatype=column.datatype,
                        shape=column.shape,
                        data=bytes(column.data),
                    )
                    for column in answer.columns
                ],
                runtime=self._runtime,
                compute_ns=answer.compute_ns,
                output_ns=answer.output_ns,
                more=True,
            ),
        )

    def cached(self, request: Request, outputs: Outputs, took_ns: int) -> bytes:
        """Returns a reply with cached outputs, which took `took_ns` nanoseconds to find."""
        return _addressed(
            request,
            work_pb2.WorkReply(
                outputs=outputs,
                runtime=self._runtime,
                input_ns=took_ns,
                rows=request.rows,
                cached=True,
            ),
        )

    def replies(self, result: BatchResult, started: float) -> list[EncodedReplies]:
        """Returns the replies to the result's open requests by message, and closes the requests.

        The first reply leads, because routers count model calls by the replies that lead.
        """
        found: list[EncodedReplies] = []
        sliced = not result.alone
        ends = row_offsets(result.requests) if sliced else [0, result.requests[0].rows]
        template: _Template | None = None
        last: EncodedReplies | None = None
        for request, start, stop in zip(result.requests, ends, ends[1:], strict=False):
            if not request.open:
                continue
            if request.group is not None:
                for frame, each in self._to_members(request, start, result, started, not found):
                    found.append(EncodedReplies(request.work, [frame], each))
                last = None
                continue
            request.open = False
            work = request.work
            if last is None or work is not last.work:
                last = EncodedReplies(work, [])
                found.append(last)
                if template is not None:
                    template.waited(started - work.received)
            if template is None:
                template = _Template(self._runtime, result, sliced, leads=not found[0].frames)
                template.waited(started - work.received)
            frame = template.write(request.id, start, stop)
            last.frames.append(frame)
            if len(frame) > _REUSED_BYTES:
                template = None
        return found

    def _to_members(
        self, request: Request, start: int, result: BatchResult, started: float, leads: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Yields replies to the members that still wait, each with the number of members that it
        answers, and closes the request. The members' rows begin at `start` in the result.
        """
        group = request.group
        assert group is not None
        places = open_places(request)
        close(request)
        rows = request.rows // len(request.members)
        reply = work_pb2.WorkReply(**_shared(self._runtime, result))
        reply.leads = leads
        reply.rows = rows
        reply.queue_ns = max(0, int((started - request.work.received) * 1e9))
        sliced = not result.alone
        for column in result.columns:
            shape = (rows, *column.shape[1:]) if sliced else column.shape
            reply.outputs.add(name=column.name, datatype=column.datatype, shape=shape)
        waiting = self._fitting(places, rows, result)
        while waiting:
            chosen = waiting.popleft()
            for output, column in zip(reply.outputs, result.columns, strict=True):
                output.data = (
                    _rows_of(column, chosen, start, rows) if sliced else bytes(column.data)
                )
            members: Sequence[int] = request.members
            if len(chosen) < len(members):
                members = [members[place] for place in chosen]
            frame = _group_frame(reply, group, members)
            if len(frame) > self._frame_bytes and len(chosen) > 1:
                half = len(chosen) // 2
                waiting.extendleft((chosen[half:], chosen[:half]))
                continue
            yield frame, len(chosen)
            reply.leads = False

    def _fitting(
        self, places: Sequence[int], rows: int, result: BatchResult
    ) -> deque[Sequence[int]]:
        """Returns the places in portions of which each fits into one reply, if the outputs of each
        member have the same length.
        """
        nbytes = sum([len(column.data) for column in result.columns])
        if nbytes <= self._frame_bytes:
            return deque([places] if places else ())
        number = max(1, self._frame_bytes * result.rows // (nbytes * rows))
        return deque([places[at : at + number] for at in range(0, len(places), number)])


class _Template:
    """A reply with everything that the replies of one call have in common, rewritten for each."""

    def __init__(self, runtime: str, result: BatchResult, sliced: bool, *, leads: bool) -> None:
        self._envelope = work_pb2.WorkReplyEnvelope()
        self._reply = self._envelope.replies.add(leads=leads, **_shared(runtime, result))
        self._outputs = [
            (
                self._reply.outputs.add(
                    name=column.name, datatype=column.datatype, shape=column.shape
                ),
                column,
            )
            for column in result.columns
        ]
        self._sliced = sliced
        self._rows = 0

    def waited(self, seconds: float) -> None:
        """Sets the queue time of the replies that are written next."""
        self._reply.queue_ns = max(0, int(seconds * 1e9))

    def write(self, item_id: str, start: int, stop: int) -> bytes:
        """Returns the reply to the request with the rows from `start` up to `stop`."""
        reply = self._reply
        rows = stop - start
        reply.id = item_id
        if rows != self._rows:
            self._rows = reply.rows = rows
            if self._sliced:
                for output, column in self._outputs:
                    output.shape[:] = (rows, *column.shape[1:])
        for output, column in self._outputs:
            output.data = column.slice_rows(start, stop) if self._sliced else bytes(column.data)
        frame: bytes = self._envelope.SerializeToString()
        # Routers count model calls by the replies that lead, so only the first one does.
        reply.leads = False
        return frame


def _shared(runtime: str, result: BatchResult) -> dict[str, Any]:
    """Returns the fields that all replies of one call have in common, but for the outputs."""
    return {
        "runtime": runtime,
        "batch_rows": result.rows,
        "input_ns": result.input_ns,
        "compute_ns": result.compute_ns,
        "output_ns": result.output_ns,
        "error": to_work_error(result.error) if result.error is not None else None,
    }


def _rows_of(column: OutputColumn, places: Sequence[int], start: int, rows: int) -> bytes:
    """Returns the data of members at these places, of `rows` rows each; the first is at `start`."""
    if places[-1] - places[0] + 1 == len(places):
        return column.slice_rows(start + places[0] * rows, start + (places[-1] + 1) * rows)
    begins = [start + place * rows for place in places]
    return b"".join([column.slice_rows(begin, begin + rows) for begin in begins])


def _addressed(request: Request, reply: work_pb2.WorkReply) -> bytes:
    """Returns a reply to the item or the members of a request."""
    if request.group is not None:
        return _group_frame(reply, request.group, request.members)
    reply.id = request.id
    return _frame(reply)


def _group_frame(reply: work_pb2.WorkReply, group: Group, members: Sequence[int]) -> bytes:
    every = len(members) == len(group.timeouts_ms)
    answered = work_pb2.WorkReplyGroup(id=group.id, members=() if every else members, reply=reply)
    return work_pb2.WorkReplyEnvelope(groups=[answered]).SerializeToString()


def _frame(reply: work_pb2.WorkReply) -> bytes:
    return work_pb2.WorkReplyEnvelope(replies=[reply]).SerializeToString()
