"""Names and arguments of queues, exchanges and routing keys, as data. Nothing else spells one
out.
"""

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

# Per queue of one model version: enough for a burst, little enough that the last one in is answered
# in time.
INFERENCE_MAX_LENGTH = 10_000
# A queue nobody used for half an hour goes away; the next request declares it anew.
INFERENCE_EXPIRES_MS = 30 * 60 * 1000


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue's arguments. Both sides declare with the same spec, so that either may come first."""

    name: str
    durable: bool = True
    exclusive: bool = False
    max_length: int = 0
    expires_ms: int = 0


def requirements_digest(requires: requirements_pb2.Requirements) -> str:
    """Eight hex digits for what a call requires, "any" when it requires nothing."""
    data = requires.SerializeToString(deterministic=True)
    return hashlib.sha256(data).hexdigest()[:8] if data else "any"


def serving_key(model_version: str, requires: requirements_pb2.Requirements) -> str:
    """Names what runtimes serve: one version under one set of requirements,
    "{bucket}/{model}/{version}/{digest}".

    `model_version` is buckets/{bucket}/models/{model}/versions/{version}.
    """
    name = parse_model(model_version)
    return f"{name.bucket}/{name.model}/{name.version}/{requirements_digest(requires)}"


def inference_queue(key: str) -> QueueSpec:
    """The queue of a serving key."""
    return QueueSpec(
        f"stellwerk.infer.{key}", max_length=INFERENCE_MAX_LENGTH, expires_ms=INFERENCE_EXPIRES_MS
    )


def reply_queue(instance: str) -> QueueSpec:
    """A router process's own queue for answers."""
    return QueueSpec(f"stellwerk.reply.{instance}", durable=False, exclusive=True)
