"""Sends replies to the queues of routers. The first reply goes at once; replies that come while a
message is under way share the next message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.chassis.broker.port import Broker, Message
from services.runtime.execution.stream_call import Sent
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import (
    BrokerDown,
    Overloaded,
    ServiceError,
    TooLarge,
    Unroutable,
    to_work_error,
)

# Replies and bytes of one message. One more reply costs its router little; a huge message delays
# every reply behind it.
_MAX_REPLIES = 256
_MAX_BYTES = 4 * 1024 * 1024
# Attempts to send a message, and seconds between them. A broker that is away for longer has lost
# the connection and with it the request.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
# Bytes of a message that the broker's frames and the envelope may take beside its replies.
_ENVELOPE_BYTES = 64 * 1024


@dataclass(slots=True)
class _Outgoing:
    frames: Sequence[bytes]
    size: int
    sent: Sent
    # Items and members that the frames answer.
    replies: int


@dataclass(slots=True, eq=False)
class _Outbox:
    queue: str
    waiting: deque[_Outgoing] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Sending:
    """A message under way."""

    box: _Outbox
    parts: Sequence[_Outgoing]
    message: Message
    attempt: int = 1

    @property
    def replies(self) -> int:
        return sum([part.replies for part in self.parts])


class ReplySender:
    """Holds an outbox for each reply queue, with at most one message under way each."""

    def __init__(self, broker: Broker, *, max_message_bytes: int, log: Any) -> None:
        self._broker = broker
        self._max_bytes = max_message_bytes - _ENVELOPE_BYTES
        self._log = log
        self._boxes: dict[str, _Outbox] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def frame_bytes(self) -> int:
        """Bytes up to which a reply to several members of a group is sent as one."""
        return min(_MAX_BYTES, self._max_bytes)

    def send(self, queue: str, frames: Sequence[bytes], sent: Sent, each: int = 1) -> None:
        """Queues replies, each serialised as an envelope of one; a reply to `each` members of a
        group counts as `each` replies.

        Calls `sent` one or more times, with numbers of replies that add up to all of them.
        """
        box = self._boxes.get(queue)
        if box is None:
            box = self._boxes[queue] = _Outbox(queue)
            self._empty.clear()
            # On the loop's next turn: other replies of this turn belong in the same message.
            asyncio.get_running_loop().call_soon(self._next, box)
        part: list[bytes] = []
        size = 0
        for given in frames:
            frame = given if len(given) <= self._max_bytes else _too_large(given, self._max_bytes)
            if part and (size + len(frame) > _MAX_BYTES or len(part) * each >= _MAX_REPLIES):
                box.waiting.append(_Outgoing(part, size, sent, len(part) * each))
                part, size = [], 0
            part.append(frame)
            size += len(frame)
        box.waiting.append(_Outgoing(part, size, sent, len(part) * each))

    async def close(self) -> None:
        """Waits until every outbox is empty."""
        await self._empty.wait()

    def _next(self, box: _Outbox) -> None:
        parts = _fitting(box.waiting)
        body = b"".join([frame for part in parts for frame in part.frames])
        self._post(_Sending(box, parts, Message(body)))

    def _post(self, sending: _Sending) -> None:
        def confirmed(future: asyncio.Future[None]) -> None:
            if future.cancelled():
                # Whether the message arrived is unknown, so its work stays unacknowledged.
                self._forget(sending.box)
            else:
                self._confirmed(sending, future.exception())

        self._broker.post(sending.box.queue, sending.message).add_done_callback(confirmed)

    def _confirmed(self, sending: _Sending, error: BaseException | None) -> None:
        box = sending.box
        if isinstance(error, (BrokerDown, Overloaded)) and sending.attempt < _ATTEMPTS:
            self._log.warning(
                "reply_delayed", queue=box.queue, reason=error.reason, attempt=sending.attempt
            )
            sending.attempt += 1
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._post, sending)
            return
        if error is not None:
            self._log_refusal(sending, error)
        for part in sending.parts:
            part.sent(part.replies, error is None)
        if box.waiting:
            self._next(box)
        else:
            self._forget(box)

    def _forget(self, box: _Outbox) -> None:
        del self._boxes[box.queue]
        if not self._boxes:
            self._empty.set()

    def _log_refusal(self, sending: _Sending, error: BaseException) -> None:
        fields = {"queue": sending.box.queue, "replies": sending.replies}
        if isinstance(error, Unroutable):
            # The router is gone, and its callers with it.
            self._log.info("reply_unwanted", **fields)
        elif isinstance(error, ServiceError):
            self._log.error("reply_refused", reason=error.reason, **fields)
        else:
            self._log.error("reply_refused", reason="INTERNAL", exc_info=error, **fields)


def _fitting(waiting: deque[_Outgoing]) -> list[_Outgoing]:
    """Removes and returns the first parts, at least one, that fit into one message."""
    parts = [waiting.popleft()]
    size = parts[0].size
    count = parts[0].replies
    while (
        waiting
        and size + waiting[0].size <= _MAX_BYTES
        and count + waiting[0].replies <= _MAX_REPLIES
    ):
        size += waiting[0].size
        count += waiting[0].replies
        parts.append(waiting.popleft())
    return parts


def _too_large(frame: bytes, limit: int) -> bytes:
    """Returns the error reply that takes the place of a reply above `limit` bytes."""
    error = TooLarge(
        f"the answer has {len(frame)} bytes, more than the {limit} that a message may have; ask for"
        " fewer rows",
        size_bytes=len(frame),
        limit_bytes=limit,
    )
    envelope = work_pb2.WorkReplyEnvelope.FromString(frame)
    for reply in (*envelope.replies, *[group.reply for group in envelope.groups]):
        short = work_pb2.WorkReply(id=reply.id, error=to_work_error(error), runtime=reply.runtime)
        reply.CopyFrom(short)
    return envelope.SerializeToString()
