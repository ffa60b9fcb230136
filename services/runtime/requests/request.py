"""One caller's request, and the message that it came in with others. They share a message, never a
fate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.runtime.formats.port import Array, LoadedModel
from stellwerk.job.v1 import work_pb2

if TYPE_CHECKING:
    from services.runtime.batching.scheduler import Lane
    from services.runtime.requests.layouts import Form

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class InHand:
    """A message whose items are being answered. Times are time.monotonic."""

    lane: Lane
    # Where the answers go; "" if nobody wants any.
    queue: str
    received: float
    # Replies that are not with the broker yet.
    unsent: int
    finished: Callable[[InHand], None]
    requests: list[Request] = field(default_factory=list)
    # The loaded model, leased for this message; None while it is being loaded.
    model: LoadedModel | None = None

    def sent(self, replies: int, taken: bool = True) -> None:
        """So many more replies are with the broker, or nobody waits for them any more."""
        self.unsent -= replies
        if not self.unsent:
            self.finished(self)


@dataclass(slots=True, eq=False)
class Request:
    """An item that was found valid, until it is answered."""

    id: str
    form: Form
    # The common first dimension of the inputs; 0 if they have none in common.
    rows: int
    # One for each field of the form: the rows' bytes, or an array where those say nothing by
    # themselves.
    parts: Sequence[bytes | Array]
    work: InHand
    item: work_pb2.WorkItem
    deadline: float = NEVER
    # 1 goes first.
    priority: int = 1
    # Whether the answer is still to come. Once it is not, whatever the model says is thrown away.
    open: bool = True
    # Whether the method gives any number of answers.
    decoupled: bool = False
    # Under which its answer is kept; empty for one that is not.
    key: bytes = b""
    # The number of its arrival, among those of its version.
    order: int = 0
