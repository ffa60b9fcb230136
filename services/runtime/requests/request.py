"""Holds requests from their delivery to their reply. Requests of a message share its delivery and
its acknowledgement; each succeeds or fails by itself, and so does each member of a group.
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
    # Items and members whose replies the broker has not taken yet.
    unsent: int
    # Called once, after the broker took the last reply.
    finished: Callable[[WorkMessage], None]
    requests: list[Request] = field(default_factory=list)
    # The loaded model, leased for this message; None while the model is being loaded.
    model: LoadedModel | None = None

    def sent(self, replies: int, taken: bool = True) -> None:
        """Records that the broker took `replies` more replies, or that no one waits for them.

        A reply to several members of a group counts as one for each.
        """
        self.unsent -= replies
        if not self.unsent:
            self.finished(self)


@dataclass(slots=True, eq=False)
class Group:
    """A group of a message: what each member has of its own, and which members wait for a reply.

    A column has one element for each member, or none. Only the event loop changes `open`; worker
    threads read it.
    """

    id: str
    # What all members share; its inputs hold the data of all members.
    form: work_pb2.WorkItem
    # When the message arrived, as time.monotonic().
    received: float
    timeouts_ms: Sequence[int]
    request_ids: Sequence[str]
    traceparents: Sequence[str]
    # 1 for each member whose reply is still to come, else 0.
    open: bytearray

    def deadline(self, member: int) -> float:
        """Returns the deadline of one member, NEVER if it has none."""
        timeout = self.timeouts_ms[member]
        return self.received + timeout / 1000 if timeout else NEVER


@dataclass(slots=True, eq=False)
class Request:
    """A valid item of a message, or members of a group, until it is answered.

    `members` has functions for requests of several members, which can be cut between any two.
    """

    # The item's id, or the group's.
    id: str
    layout: RequestLayout
    # The common first dimension of the inputs; 0 if they have none in common. Each member of a
    # group has the same share of them.
    rows: int
    # The value of each field of the layout: the bytes of the rows, or an array.
    parts: Sequence[bytes | memoryview | Array]
    work: WorkMessage
    # The item; of several members, the group's form.
    item: work_pb2.WorkItem
    # Of several members, the last of their deadlines.
    deadline: float = NEVER
    # Level 1 goes first.
    priority: int = 1
    # Whether the reply is still to come; a result for a closed request is dropped. Which members
    # of an open request wait for a reply is told by its group.
    open: bool = True
    # Whether the method streams any number of answers.
    streams: bool = False
    # The response cache's key; empty where responses are not cached.
    cache_key: bytes = b""
    # The arrival number within the version's queue.
    order: int = 0
    # The group of the members, and their indexes in rising order; None and empty for an item.
    group: Group | None = None
    members: Sequence[int] = ()
