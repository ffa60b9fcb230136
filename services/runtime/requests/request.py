"""Holds requests from their delivery to their reply. Requests of a message share its delivery and
its acknowledgement; each succeeds or fails by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.runtime.formats.port import Array, LoadedModel
from services.runtime.requests.batchability import Method
from stellwerk.job.v1 import work_pb2

# The deadline of a request without one.
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class InputField:
    """An input of a layout. A request holds its value as bytes of rows, or as an array where
    `row_bytes` is 0.
    """

    name: str
    datatype: str = ""
    # All dimensions but the first.
    trailing: tuple[int, ...] = ()
    row_bytes: int = 0
    # The type in which numpy reads the rows; None for BF16, which it does not know.
    dtype: np.dtype[np.generic] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RequestLayout:
    """Everything about a request but its rows: method, wanted outputs and inputs.

    Two layouts are equal only if they are the same object, so comparing them costs nothing.
    """

    method: Method
    outputs: tuple[str, ...]
    fields: tuple[InputField, ...]
    # Whether requests of this layout have rows that may lie end to end in one call.
    by_rows: bool


@dataclass(slots=True, eq=False)
class WorkMessage:
    """A delivered message whose requests are being answered. Times are time.monotonic()."""

    # The version's resource name.
    model_version: str
    # The queue that replies go to; "" if the sender wants none.
    reply_to: str
    received: float
    # Replies that the broker has not taken yet.
    unsent: int
    # Called once, after the broker took the last reply.
    finished: Callable[[WorkMessage], None]
    requests: list[Request] = field(default_factory=list)
    # The loaded model, leased for this message; None while the model is being loaded.
    model: LoadedModel | None = None

    def sent(self, replies: int, taken: bool = True) -> None:
        """Records that the broker took `replies` more replies, or that no one waits for them."""
        self.unsent -= replies
        if not self.unsent:
            self.finished(self)


@dataclass(slots=True, eq=False)
class Request:
    """A valid item of a message, until it is answered."""

    id: str
    layout: RequestLayout
    # The common first dimension of the inputs; 0 if they have none in common.
    rows: int
    # The value of each field of the layout: the bytes of the rows, or an array.
    parts: Sequence[bytes | Array]
    work: WorkMessage
    item: work_pb2.WorkItem
    deadline: float = NEVER
    # Level 1 goes first.
    priority: int = 1
    # Whether the reply is still to come; a result for a closed request is dropped.
    open: bool = True
    # Whether the method streams any number of answers.
    streams: bool = False
    # The response cache's key; empty where responses are not cached.
    cache_key: bytes = b""
    # The arrival number within the version's queue.
    order: int = 0
