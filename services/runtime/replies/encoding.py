"""What a call answered, as replies. Each is serialised as an envelope of one: such bytes laid end
to end are an envelope of all, so that nobody has to build or measure them twice.
"""

from __future__ import annotations

from services.runtime.execution.invoke import Piece
from services.runtime.execution.jobs import Value
from services.runtime.replies.response_cache import Outputs
from services.runtime.requests.request import InHand, Request
from services.runtime.requests.row_slices import offsets
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import ServiceError, to_work_error

# A reply's own bytes beyond which no next one is written over it: what it held would stay in memory
# until the last.
_REUSED_BYTES = 64 * 1024


class ReplyWriter:
    """Writes the replies of one runtime."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime

    def error(self, item_id: str, error: ServiceError, waited: float = 0.0) -> bytes:
        """The reply to an item that the model was not called for; `waited` are seconds."""
        reply = work_pb2.WorkReply(
            id=item_id,
            error=to_work_error(error),
            runtime=self._runtime,
            queue_ns=max(0, int(waited * 1e9)),
        )
        return _frame(reply)

    def value(self, request: Request, value: Value) -> bytes:
        """One of several answers of a decoupled method; more follow."""
        return _frame(
            work_pb2.WorkReply(
                id=request.id,
                outputs=[
                    tensor_pb2.Tensor(
                        name=column.name,
                        datatype=column.datatype,
                        shape=column.shape,
                        data=column.all(),
                    )
                    for column in value.columns
                ],
                runtime=self._runtime,
                compute_ns=value.compute_ns,
                output_ns=value.output_ns,
                more=True,
            )
        )

    def kept(self, request: Request, outputs: Outputs, took_ns: int) -> bytes:
        """An answer that was given before; it took so long to find it."""
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

    def replies(self, piece: Piece, started: float) -> list[tuple[InHand, list[bytes]]]:
        """The replies to the piece's requests that are still open, by message; with that the
        requests are answered.
        """
        found: list[tuple[InHand, list[bytes]]] = []
        ends = offsets(piece.requests)
        cut = len(piece.requests) > 1
        template: _Template | None = None
        work: InHand | None = None
        frames: list[bytes] = []
        for request, start, stop in zip(piece.requests, ends, ends[1:], strict=False):
            if not request.open:
                continue
            request.open = False
            if request.work is not work:
                work, frames = request.work, []
                found.append((work, frames))
                if template is not None:
                    template.waited(started - work.received)
            if template is None:
                template = _Template(self._runtime, piece, cut, leads=not found[0][1])
                template.waited(started - work.received)
            frame = template.write(request.id, start, stop)
            frames.append(frame)
            if len(frame) > _REUSED_BYTES:
                template = None
        return found


class _Template:
    """A reply with what the answers of one call have in common, written over for each."""

    def __init__(self, runtime: str, piece: Piece, cut: bool, *, leads: bool) -> None:
        self._envelope = work_pb2.WorkReplyEnvelope()
        self._reply = self._envelope.replies.add(
            runtime=runtime,
            leads=leads,
            batch_rows=piece.rows,
            input_ns=piece.input_ns,
            compute_ns=piece.compute_ns,
            output_ns=piece.output_ns,
            error=to_work_error(piece.error) if piece.error is not None else None,
        )
        self._outputs = [
            (
                self._reply.outputs.add(
                    name=column.name, datatype=column.datatype, shape=column.shape
                ),
                column,
            )
            for column in piece.columns
        ]
        self._cut, self._rows = cut, 0

    def waited(self, seconds: float) -> None:
        """How long the requests that are written next waited for their call."""
        self._reply.queue_ns = max(0, int(seconds * 1e9))

    def write(self, item_id: str, start: int, stop: int) -> bytes:
        """The reply to the request of these rows."""
        reply, rows = self._reply, stop - start
        reply.id = item_id
        if rows != self._rows:
            self._rows = reply.rows = rows
            if self._cut:
                for output, column in self._outputs:
                    output.shape[:] = (rows, *column.shape[1:])
        for output, column in self._outputs:
            output.data = column.cut(start, stop) if self._cut else column.all()
        frame: bytes = self._envelope.SerializeToString()
        reply.leads = False
        return frame


def _frame(reply: work_pb2.WorkReply) -> bytes:
    return work_pb2.WorkReplyEnvelope(replies=[reply]).SerializeToString()
