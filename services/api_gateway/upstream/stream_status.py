"""Finds the status with which a call with a stream of requests really ended.

When a service answers before it has read everything, the current write fails. grpc.aio then reports
its own failure (INTERNAL) in place of the service's status, or for a moment before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

# grpc.aio's details for a failed write (grpc/_cython/_cygrpc/aio/call.pyx.pxi, grpcio 1.85).
_OWN_FAILURE = "Internal error from Core"
# Seconds by which the service's status may lag behind the failed write, and between two looks.
_LAG_SECONDS = 0.2
_POLL_SECONDS = 0.002


class StreamStatus:
    """Remembers the first status of a call. To be made before anything is written."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._remember)

    def _remember(self, call: Any) -> None:
        self._first = _error(
            *(_at_once(step) for step in (call.code(), call.details(), call.trailing_metadata()))
        )

    async def actual(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns the error that the service sent, where `seen` hides it; otherwise `seen`."""
        if not _hides(seen):
            return seen
        if self._first is not None and not _hides(self._first):
            return self._first
        deadline = asyncio.get_running_loop().time() + _LAG_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
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
    """Returns the result of a coroutine that never waits, such as a finished call's status."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    step.close()
    return None
