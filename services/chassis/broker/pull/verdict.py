"""What a hub's result means to the caller: nothing, or an error of the vocabulary."""

from __future__ import annotations

from services.chassis.broker.pull.hub import Result
from stellwerk.wire.errors import Conflict, Overloaded, ServiceError, Unroutable


def check(result: Result, queue: str) -> None:
    """Returns if the result is OK. Raises Unroutable, Overloaded or Conflict."""
    error = _error(result, queue)
    if error is not None:
        raise error


def _error(result: Result, queue: str) -> ServiceError | None:
    match result:
        case Result.OK:
            return None
        case Result.FULL:
            return Overloaded(f"queue {queue} is full; try again later", queue=queue)
        case Result.MISMATCH:
            return Conflict(
                f"queue {queue} exists with other arguments or belongs to another process",
                queue=queue,
            )
        case Result.UNROUTABLE | Result.NO_QUEUE:
            return Unroutable(f"there is no queue {queue}; declare it first", queue=queue)
