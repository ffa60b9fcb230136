"""Turns the port's messages into the frames that carry them over gRPC, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from services.chassis.broker.port import Message
from services.chassis.broker.pull.hub import Dispatch
from services.chassis.broker.pull.results import Result
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.wire.topology import QueueSpec

Frame = TypeVar("Frame")

# Bytes and frames that one batch holds at most. A batch is copied once; of larger batches the copy
# costs more than the single frames that it saves.
_BATCH_BYTES = 256 * 1024
_BATCH_FRAMES = 128

RESULTS: dict[int, Result] = {
    pull.Outcome.RESULT_OK: Result.OK,
    pull.Outcome.RESULT_UNROUTABLE: Result.UNROUTABLE,
    pull.Outcome.RESULT_FULL: Result.FULL,
    pull.Outcome.RESULT_NO_QUEUE: Result.NO_QUEUE,
    pull.Outcome.RESULT_MISMATCH: Result.MISMATCH,
}
NUMBERS: dict[Result, Any] = {result: number for number, result in RESULTS.items()}


def to_frame(message: Message) -> pull.BrokerMessage:
    """Returns the frame that carries a message."""
    return pull.BrokerMessage(
        body=message.body,
        headers=message.headers,
        reply_to=message.reply_to,
        correlation_id=message.correlation_id,
        expiration_ms=message.expiration_ms,
        message_id=message.message_id,
    )


def from_frame(frame: pull.BrokerMessage) -> Message:
    """Returns the message that a frame carries."""
    return Message(
        body=frame.body,
        headers=dict(frame.headers),
        reply_to=frame.reply_to,
        correlation_id=frame.correlation_id,
        expiration_ms=frame.expiration_ms,
        message_id=frame.message_id,
    )


def declaration(spec: QueueSpec) -> pull.QueueDeclaration:
    """Returns the frame that carries a queue's arguments.

    `durable` is left out: the hub's queues live as long as the hub.
    """
    return pull.QueueDeclaration(
        name=spec.name,
        max_length=spec.max_length,
        expires_ms=spec.expires_ms,
        exclusive=spec.exclusive,
    )


def spec_of(frame: pull.QueueDeclaration) -> QueueSpec:
    """Returns the queue's arguments that a frame carries."""
    return QueueSpec(
        frame.name,
        exclusive=frame.exclusive,
        max_length=frame.max_length,
        expires_ms=frame.expires_ms,
    )


def delivery(dispatch: Dispatch) -> pull.ExchangeResponse:
    """Returns the frame that carries a message to a consumer."""
    return pull.ExchangeResponse(
        delivery=pull.Delivery(
            consumer=dispatch.consumer,
            tag=dispatch.tag,
            redelivered=dispatch.redelivered,
            message=to_frame(dispatch.message),
            routing_key=dispatch.routing_key,
        )
    )


def gathered(waiting: deque[Frame], size: Callable[[Frame], int]) -> list[Frame]:
    """Takes the next batch from the waiting frames: at least one, at most 128 and 256 KiB.

    `size` returns the bytes that a frame adds.
    """
    frames = [waiting.popleft()]
    total = size(frames[0])
    while waiting and len(frames) < _BATCH_FRAMES:
        total += size(waiting[0])
        if total > _BATCH_BYTES:
            break
        frames.append(waiting.popleft())
    return frames
