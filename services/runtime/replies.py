"""Sends answers to routers: what is there goes at once; what comes while a message is under way goes with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.chassis.broker.port import Broker, Message
from services.wire.errors import BrokerDown, Overloaded, ServiceError, TooLarge, Unroutable, to_work_error
from stellwerk.job.v1 import work_pb2

# Bounds of one message: a reply more costs its router little, a huge message delays all that come behind it.
_MAX_REPLIES = 256
_MAX_BYTES = 4 * 1024 * 1024
# A broker that is away for longer than this has lost the connection, and with it the question.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class _Outgoing:
    reply: work_pb2.WorkReply
    sent: asyncio.Future[bool]


class ReplySender:
    """One outbox for each reply queue."""

    def __init__(self, broker: Broker, *, max_message_bytes: int, log: Any) -> None:
        self._broker = broker
        # Frames and envelopes add a little to the reply itself.
        self._max_bytes = max_message_bytes - 64 * 1024
        self._log = log
        self._boxes: dict[str, list[_Outgoing]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, queue: str, reply: work_pb2.WorkReply) -> asyncio.Future[bool]:
        """Queues a reply. The future tells whether the broker took it; it is False when nobody waits any more."""
        size = reply.ByteSize()
        if size > self._max_bytes:
            reply = _too_large(reply, size, self._max_bytes)
        item = _Outgoing(reply, asyncio.get_running_loop().create_future())
        box = self._boxes.get(queue)
        if box is not None:
            box.append(item)
        else:
            self._boxes[queue] = [item]
            task = asyncio.create_task(self._flush(queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return item.sent

    async def close(self) -> None:
        """Waits until every outbox is empty."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _flush(self, queue: str) -> None:
        try:
            while box := self._boxes[queue]:
                batch = box[: _fitting(box)]
                del box[: len(batch)]
                taken = await self._publish(queue, [item.reply for item in batch])
                for item in batch:
                    if not item.sent.done():
                        item.sent.set_result(taken)
        finally:
            for item in self._boxes.pop(queue, []):
                item.sent.cancel()

    async def _publish(self, queue: str, replies: Sequence[work_pb2.WorkReply]) -> bool:
        body = work_pb2.WorkReplyEnvelope(replies=replies).SerializeToString()
        for attempt in range(_ATTEMPTS):
            try:
                await self._broker.publish(queue, Message(body))
            except Unroutable:
                self._log.info("reply_unwanted", queue=queue, replies=len(replies))
                return False
            except (BrokerDown, Overloaded) as exc:
                self._log.warning("reply_delayed", queue=queue, reason=exc.reason, attempt=attempt + 1)
                await asyncio.sleep(_PAUSE_SECONDS)
            except ServiceError as exc:
                self._log.error("reply_refused", queue=queue, reason=exc.reason)
                return False
            else:
                return True
        return False


def _fitting(box: list[_Outgoing]) -> int:
    """How many from the front make one message; at least one."""
    size, count = 0, 0
    for item in box[:_MAX_REPLIES]:
        size += item.reply.ByteSize()
        if count and size > _MAX_BYTES:
            break
        count += 1
    return count


def _too_large(reply: work_pb2.WorkReply, size: int, limit: int) -> work_pb2.WorkReply:
    error = TooLarge(
        f"the answer has {size} bytes, more than the {limit} that a message may have; ask for fewer rows",
        size_bytes=size,
        limit_bytes=limit,
    )
    return work_pb2.WorkReply(id=reply.id, error=to_work_error(error), runtime=reply.runtime)
