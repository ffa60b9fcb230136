"""How a call with a stream of requests really ended.

When an upstream answers before it has read everything, the write in hand fails, and grpc.aio then
reports that failure of its own (INTERNAL) instead of the answer, in either order: it overwrites the
status or is overwritten by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

# What grpc.aio says when a write failed (grpc/_cython/_cygrpc/aio/call.pyx.pxi).
_OWN_FAILURE = "Internal error from Core"
# How long the true status may lag behind the failed write.
_LAG_SECONDS = 0.2
_LOOK_EVERY = 0.002


class Ending:
    """Remembers the first status of a call. Make it before anything is written."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._take)

    def _take(self, call: Any) -> None:
        self._first = _error(
            *(_at_once(step) for step in (call.code(), call.details(), call.trailing_metadata()))
        )

    async def true(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error that the upstream sent, where `seen` only hides it; otherwise `seen`."""
        if not _hides(seen):
            return seen
        if self._first is not None and not _hides(self._first):
            return self._first
        deadline = asyncio.get_running_loop().time() + _LAG_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_EVERY)
            call = self._call
            now = _error(await call.code(), await call.details(), await call.trailing_metadata())
            if not _hides(now):
                return now
        return seen


def _hides(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and _OWN_FAILURE in (error.details() or "")


def _error(code: Any, details: Any, trailers: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), details=details
    )


def _at_once(step: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for: the status of a call that is done."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    step.close()
    return None
