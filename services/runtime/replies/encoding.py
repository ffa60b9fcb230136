"""Encodes replies. Each is serialised as an envelope of one; such envelopes laid end to end are one
envelope of all, so no reply is built or measured twice.
"""

from __future__ import annotations

from services.runtime.execution.batch_call import BatchResult
from services.runtime.execution.stream_call import StreamedAnswer
from services.runtime.replies.response_cache import Outputs
from services.runtime.requests.output_columns import row_offsets
from services.runtime.requests.request import Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import ServiceError, to_work_error

# Bytes of a reply above which its message object is not reused for the next one: protobuf would
# keep that memory until the last reply of the batch.
_REUSED_BYTES = 64 * 1024


class ReplyEncoder:
    """Encodes the replies of one runtime."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime

    def error(self, item_id: str, error: ServiceError, waited: float = 0.0) -> bytes:
        """Returns the reply to an item that no model was called for, after `waited` seconds."""
        reply = work_pb2.WorkReply(
            id=item_id,
            error=to_work_error(error),
            runtime=self._runtime,
            queue_ns=max(0, int(waited * 1e9)),
        )
        return _frame(reply)

    def streamed(self, request: Request, answer: StreamedAnswer) -> bytes:
        """Returns one of several replies of a streaming method; more follow."""
        return _frame(
            work_pb2.WorkReply(
                id=request.id,
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
            )
        )

    def cached(self, request: Request, outputs: Outputs, took_ns: int) -> bytes:
        """Returns a reply with cached outputs, which took `took_ns` nanoseconds to find."""
        return _frame(
            work_pb2.WorkReply(
                id=request.id,
                outputs=outputs,
                runtime=self._runtime,
                input_ns=took_ns,
                rows=request.rows,
                cached=True,
            )
        )

    def replies(self, result: BatchResult, started: float) -> list[tuple[WorkMessage, list[bytes]]]:
        """Returns the replies to the result's open requests by message, and closes the requests."""
        found: list[tuple[WorkMessage, list[bytes]]] = []
        sliced = len(result.requests) > 1
        ends = row_offsets(result.requests) if sliced else [0, result.requests[0].rows]
        template: _Template | None = None
        work: WorkMessage | None = None
        frames: list[bytes] = []
        for request, start, stop in zip(result.requests, ends, ends[1:], strict=False):
            if not request.open:
                continue
            request.open = False
            if request.work is not work:
                work, frames = request.work, []
                found.append((work, frames))
                if template is not None:
                    template.waited(started - work.received)
            if template is None:
                template = _Template(self._runtime, result, sliced, leads=not found[0][1])
                template.waited(started - work.received)
            frame = template.write(request.id, start, stop)
            frames.append(frame)
            if len(frame) > _REUSED_BYTES:
                template = None
        return found


class _Template:
    """A reply with everything that the replies of one call have in common, rewritten for each."""

    def __init__(self, runtime: str, result: BatchResult, sliced: bool, *, leads: bool) -> None:
        self._envelope = work_pb2.WorkReplyEnvelope()
        self._reply = self._envelope.replies.add(
            runtime=runtime,
            leads=leads,
            batch_rows=result.rows,
            input_ns=result.input_ns,
            compute_ns=result.compute_ns,
            output_ns=result.output_ns,
            error=to_work_error(result.error) if result.error is not None else None,
        )
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


def _frame(reply: work_pb2.WorkReply) -> bytes:
    return work_pb2.WorkReplyEnvelope(replies=[reply]).SerializeToString()
