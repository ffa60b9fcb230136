"""Carries plans out over a transport: `SyncSession` at once, `AsyncSession` when awaited.

The rules (retries, time left, progress, caching) live in plans and functions shared by both; the
two differ in `await`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from stellwerk.client.errors import ServiceError
from stellwerk.client.session.plan import Call, Download, Pause, Plan, Progress, Step, Upload, Work
from stellwerk.client.session.retry import RetryBudget, pause_before_retry
from stellwerk.client.transport.port import AsyncTransport, SyncTransport
from stellwerk.client.transport.rpc import rpc_of
from stellwerk.repository.v1.repository_service_pb2 import ModelVersion

T = TypeVar("T")
# Streams are fastest in pieces of 256 KiB to 1 MiB.
PIECE_BYTES = 1 << 19
# A transfer may take the usual time and a second more for each of these many bytes.
SLOWEST_BYTES_PER_SECOND = 1 << 20


@dataclass(slots=True)
class State:
    """What a client remembers between calls."""

    timeout: float
    bucket: str
    budget: RetryBudget = field(default_factory=RetryBudget)
    # Versions by the name they were asked by, with the monotonic time until which that is believed.
    versions: dict[str, tuple[float, ModelVersion]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Send a request once."""

    request: Message
    timeout: float


def _attempts(step: Call, state: State) -> Plan[Message]:
    timeout = step.timeout or state.timeout
    ends = time.monotonic() + timeout
    state.budget.earn()
    for attempt in itertools.count(1):
        try:
            answer: Message = yield _Attempt(step.request, ends - time.monotonic())  # type: ignore[misc]
            return answer
        except ServiceError as error:
            pause = pause_before_retry(error, attempt, ends - time.monotonic(), random.random())
            if pause is None or not rpc_of(step.request).repeatable or not state.budget.spend():
                raise
        yield Pause(pause)
    raise AssertionError("unreachable")


def _transfer_time(state: State, size: int) -> float:
    return state.timeout + size / SLOWEST_BYTES_PER_SECOND


def _pieces(path: Path, progress: Progress | None) -> Iterator[bytes]:
    size, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            if progress:
                progress(done, size)


class SyncSession:
    """Carries plans out, blocking."""

    def __init__(self, transport: SyncTransport, state: State) -> None:
        self.transport, self.state = transport, state

    def run(self, plan: Plan[T]) -> T:
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

    def _perform(self, step: Step | _Attempt) -> Any:
        match step:
            case _Attempt(request, timeout):
                return self.transport.call(request, timeout)
            case Call():
                return self.run(_attempts(step, self.state))
            case Pause(seconds):
                return time.sleep(seconds)
            case Work(run):
                return run()
            case Upload(request, path, progress):
                size = path.stat().st_size
                return self.transport.upload(
                    request, _pieces(path, progress), size, _transfer_time(self.state, size)
                )
            case Download():
                return self._download(step)

    def _download(self, step: Download) -> None:
        done = 0
        with step.path.open("wb") as file:
            for piece in self.transport.download(
                step.request, _transfer_time(self.state, step.size)
            ):
                file.write(piece)
                done += len(piece)
                if step.progress:
                    step.progress(done, step.size)


class AsyncSession:
    """Carries plans out when awaited; files and processor work are left to threads."""

    def __init__(self, transport: AsyncTransport, state: State) -> None:
        self.transport, self.state = transport, state

    async def run(self, plan: Plan[T]) -> T:
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

    async def _perform(self, step: Step | _Attempt) -> Any:
        match step:
            case _Attempt(request, timeout):
                return await self.transport.call(request, timeout)
            case Call():
                return await self.run(_attempts(step, self.state))
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Work(run):
                return await asyncio.to_thread(run)
            case Upload(request, path, progress):
                size = path.stat().st_size
                pieces = _in_thread(_pieces(path, progress))
                return await self.transport.upload(
                    request, pieces, size, _transfer_time(self.state, size)
                )
            case Download():
                return await self._download(step)

    async def _download(self, step: Download) -> None:
        done = 0
        with step.path.open("wb") as file:
            async for piece in self.transport.download(
                step.request, _transfer_time(self.state, step.size)
            ):
                await asyncio.to_thread(file.write, piece)
                done += len(piece)
                if step.progress:
                    step.progress(done, step.size)


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
