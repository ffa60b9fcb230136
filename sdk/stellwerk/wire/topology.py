"""The names and arguments of queues, exchanges and routing keys; no other module spells them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire.names import parse_model

EVENTS_EXCHANGE = "stellwerk.events"
# Routing keys on the events exchange.
VERSION_CREATED = "repository.version.created"
VERSION_DELETED = "repository.version.deleted"
MODEL_DELETED = "repository.model.deleted"
ALIAS_CHANGED = "repository.alias.changed"
REPOSITORY_EVENTS = "repository.#"
WORK_CANCELLED = "work.cancelled"

# Messages in the queue of one version: holds a burst, whose last message is answered in time.
INFERENCE_MAX_LENGTH = 10_000
# Milliseconds after which an unused queue is deleted; the next request declares it again.
INFERENCE_EXPIRES_MS = 30 * 60 * 1000


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue's arguments. Both sides declare it with the same ones, so either may come first.

    `max_length` is a number of messages and `expires_ms` the time after which an unused queue is
    deleted; 0 sets no bound.
    """

    name: str
    durable: bool = True
    exclusive: bool = False
    max_length: int = 0
    expires_ms: int = 0


def requirements_digest(requires: requirements_pb2.Requirements) -> str:
    """Returns eight hexadecimal digits for the requirements, "any" for none."""
    data = requires.SerializeToString(deterministic=True)
    return hashlib.sha256(data).hexdigest()[:8] if data else "any"


def serving_key(model_version: str, requires: requirements_pb2.Requirements) -> str:
    """Returns the serving key of a version under requirements, {bucket}/{model}/{version}/{digest}.

    `model_version` is buckets/{bucket}/models/{model}/versions/{version}.
    """
    name = parse_model(model_version)
    return f"{name.bucket}/{name.model}/{name.version}/{requirements_digest(requires)}"


def inference_queue(key: str) -> QueueSpec:
    """Returns the queue of a serving key."""
    return QueueSpec(
        f"stellwerk.infer.{key}", max_length=INFERENCE_MAX_LENGTH, expires_ms=INFERENCE_EXPIRES_MS
    )


def reply_queue(instance: str) -> QueueSpec:
    """Returns the queue for answers to a router's process, which belongs to it alone."""
    return QueueSpec(f"stellwerk.reply.{instance}", durable=False, exclusive=True)
