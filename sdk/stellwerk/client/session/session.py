"""Carries plans out over a transport: `SyncSession` at once, `AsyncSession` when awaited.

The two differ in `await` and in threads; time limits, retries and progress are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message
from tenacity import AsyncRetrying, Retrying

from stellwerk.client.errors import Unavailable
from stellwerk.client.session.plan import Call, Download, Plan, Progress, Step, Upload, Work
from stellwerk.client.session.retry import RetryBudget, rules
from stellwerk.client.transport.port import AsyncTransport, SyncTransport
from stellwerk.client.transport.rpc import rpc_of
from stellwerk.repository.v1.repository_service_pb2 import ModelVersion

T = TypeVar("T")
# 512 KiB: transfers are fastest in pieces of 256 KiB to 1 MiB.
PIECE_BYTES = 1 << 19
# 1 MiB/s: a transfer may take the time of a call and a second more for each MiB of its file.
SLOWEST_BYTES_PER_SECOND = 1 << 20


@dataclass(slots=True)
class ClientState:
    """Holds what a client remembers between calls."""

    # Seconds of one call, retries included.
    timeout: float
    # The bucket of models named without one.
    bucket: str
    budget: RetryBudget = field(default_factory=RetryBudget)
    # A model's name → the version it stood for, and the time of time.monotonic until which this is
    # taken as true.
    versions: dict[str, tuple[float, ModelVersion]] = field(default_factory=dict)

    def transfer_seconds(self, size: int) -> float:
        """Returns the time limit of a transfer of `size` bytes."""
        return self.timeout + size / SLOWEST_BYTES_PER_SECOND


class SyncSession:
    """Carries plans out, blocking. Several threads may use one session."""

    def __init__(self, transport: SyncTransport, state: ClientState) -> None:
        self.transport = transport
        self.state = state

    def run(self, plan: Plan[T]) -> T:
        """Returns the plan's result. Raises what the plan raises."""
        try:
            step = next(plan)
            while True:
                try:
                    answer = self._perform(step)
                except BaseException as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _perform(self, step: Step) -> Any:
        match step:
            case Call(request, timeout):
                return self._call(request, timeout or self.state.timeout)
            case Work(run):
                return run()
            case Upload(request, path, progress):
                size = path.stat().st_size
                seconds = self.state.transfer_seconds(size)
                return self.transport.upload(request, _pieces(path, progress), size, seconds)
            case Download():
                return self._download(step)

    def _call(self, request: Message, timeout: float) -> Message:
        self.state.budget.earn()
        if not rpc_of(request).repeatable:
            return self.transport.call(request, timeout)
        deadline = time.monotonic() + timeout
        failed: list[Unavailable] = []
        # Outside tenacity, which costs a call 0.1 ms even if the first attempt succeeds.
        try:
            return self.transport.call(request, timeout)
        except Unavailable as error:
            failed.append(error)

        def attempt() -> Message:
            if failed:
                raise failed.pop()
            return self.transport.call(request, deadline - time.monotonic())

        return Retrying(**rules(deadline, self.state.budget))(attempt)

    def _download(self, step: Download) -> None:
        seconds = self.state.transfer_seconds(step.size)
        done = 0
        with step.path.open("wb") as file:
            for piece in self.transport.download(step.request, seconds):
                file.write(piece)
                done += len(piece)
                if step.progress:
                    step.progress(done, step.size)


class AsyncSession:
    """Carries plans out when awaited; files and processor work are left to threads."""

    def __init__(self, transport: AsyncTransport, state: ClientState) -> None:
        self.transport = transport
        self.state = state

    async def run(self, plan: Plan[T]) -> T:
        """Returns the plan's result. Raises what the plan raises."""
        try:
            step = next(plan)
            while True:
                try:
                    answer = await self._perform(step)
                except BaseException as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _perform(self, step: Step) -> Any:
        match step:
            case Call(request, timeout):
                return await self._call(request, timeout or self.state.timeout)
            case Work(run):
                return await asyncio.to_thread(run)
            case Upload(request, path, progress):
                size = path.stat().st_size
                seconds = self.state.transfer_seconds(size)
                pieces = _in_thread(_pieces(path, progress))
                return await self.transport.upload(request, pieces, size, seconds)
            case Download():
                return await self._download(step)

    async def _call(self, request: Message, timeout: float) -> Message:
        self.state.budget.earn()
        if not rpc_of(request).repeatable:
            return await self.transport.call(request, timeout)
        deadline = time.monotonic() + timeout
        failed: list[Unavailable] = []
        # Outside tenacity, which costs a call 0.1 ms even if the first attempt succeeds.
        try:
            return await self.transport.call(request, timeout)
        except Unavailable as error:
            failed.append(error)

        async def attempt() -> Message:
            if failed:
                raise failed.pop()
            return await self.transport.call(request, deadline - time.monotonic())

        return await AsyncRetrying(**rules(deadline, self.state.budget))(attempt)

    async def _download(self, step: Download) -> None:
        seconds = self.state.transfer_seconds(step.size)
        done = 0
        with step.path.open("wb") as file:
            async for piece in self.transport.download(step.request, seconds):
                await asyncio.to_thread(file.write, piece)
                done += len(piece)
                if step.progress:
                    step.progress(done, step.size)


def _pieces(path: Path, progress: Progress | None) -> Iterator[bytes]:
    size = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            if progress:
                progress(done, size)


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
