"""The results of the hub's operations, and the errors that callers of the broker get for them."""

from __future__ import annotations

import enum

from stellwerk.wire.errors import Conflict, Overloaded, Unroutable


class Result(enum.Enum):
    """The end of an operation on the hub."""

    OK = enum.auto()
    UNROUTABLE = enum.auto()
    FULL = enum.auto()
    NO_QUEUE = enum.auto()
    MISMATCH = enum.auto()


def check(result: Result, queue: str) -> None:
    """Returns if the result is OK. Raises Unroutable, Overloaded or Conflict."""
    match result:
        case Result.OK:
            return
        case Result.FULL:
            raise Overloaded(f"queue {queue} is full; try again later", queue=queue)
        case Result.MISMATCH:
            raise Conflict(
                f"queue {queue} exists with other arguments or belongs to another process",
                queue=queue,
            )
        case Result.UNROUTABLE | Result.NO_QUEUE:
            raise Unroutable(f"there is no queue {queue}; declare it first", queue=queue)
