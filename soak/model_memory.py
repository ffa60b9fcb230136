"""Loads and unloads large models in a runtime process, and reads from outside how much memory it
has.

The baseline is the process after it has loaded, called and unloaded a model of a few bytes of the
same kind: the libraries are in memory then, and every buffer and thread that a first model brings.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from soak.large_models import KINDS, MB, Sample
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.tensors import from_numpy
from tests.fakes.repository_source import FakeRepository
from tests.fakes.router_server import FakeRouterServer

CALLS = 4
_READY = router_pb2.ServedModel.STATE_READY
_FAILED = router_pb2.ServedModel.STATE_FAILED
_PATIENCE = 60.0


@dataclass(slots=True)
class Memory:
    """Resident bytes of the runtime process."""

    # Before any library of a model format was loaded.
    bare: int = 0
    # With libraries, without a model.
    baseline: int = 0
    # With a model, and after it was unloaded, of each round.
    loaded: list[int] = field(default_factory=list)
    unloaded: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """What the last round left, as a share of the baseline."""
        return self.unloaded[-1] / self.baseline - 1


class Runtime:
    """A runtime process, and the router that tells it what to do."""

    def __init__(self, router: FakeRouterServer, process: psutil.Process) -> None:
        self._router = router
        self._process = process
        self._asked = 0

    async def attached(self) -> None:
        """Waits until the runtime has said what it has."""
        await self._until(lambda: self._router.advertisements and self._router.reports)

    async def serve(self, sample: Sample) -> str:
        """Has the model served, and stored before if it was not; returns its key when it is
        ready.
        """
        if sample.version.name not in self._router.repository.versions:
            self._router.repository.add(sample.version, sample.path)
        key = self._router.serve(sample.version)
        await self._until(lambda: self._router.states().get(key) in (_READY, _FAILED))
        if self._router.states()[key] == _FAILED:
            raise RuntimeError(self._router.reports[-1].models[-1].error)
        return key

    async def call(self, sample: Sample, calls: int = CALLS) -> None:
        """Calls the version several times at once."""
        self._asked += 1
        tensor = from_numpy("X", sample.row)
        items = [
            work_pb2.WorkItem(
                id=f"{self._asked}.{number}", method="predict", inputs=[tensor], timeout_ms=30_000
            )
            for number in range(calls)
        ]
        for reply in await self._router.ask(sample.version, *items):
            if reply.HasField("error"):
                raise RuntimeError(reply.error.message)

    async def stop(self, key: str) -> None:
        """Has the version stopped."""
        self._router.stop_serving(key)
        await self._until(lambda: key not in self._router.states())

    async def resident(self) -> int:
        """Resident bytes once they have stopped to fall: models are let go in the background."""
        lowest, since = self.rss(), time.monotonic()
        while time.monotonic() - since < 0.3:
            await asyncio.sleep(0.02)
            if (now := self.rss()) < lowest - MB:
                lowest, since = now, time.monotonic()
        return self.rss()

    def rss(self) -> int:
        """Resident bytes now."""
        return int(self._process.memory_info().rss)

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not condition():
                if not self._process.is_running():
                    raise RuntimeError("the runtime process has ended")
                await asyncio.sleep(0.01)


@asynccontextmanager
async def runtime(folder: Path, memory_bytes: int = 0) -> AsyncIterator[Runtime]:
    """A runtime process that is attached, with an empty cache."""
    router = FakeRouterServer(FakeRepository())
    await router.start()
    arguments = [
        "--port",
        str(router.port),
        "--folder",
        str(folder / "cache"),
        "--memory-bytes",
        str(memory_bytes),
    ]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "soak.runtime_child", *arguments
    )
    try:
        made = Runtime(router, psutil.Process(child.pid))
        await made.attached()
        yield made
    finally:
        child.terminate()
        await child.wait()
        await router.stop()


async def loads_and_unloads(kind: str, rounds: int, size: int) -> Memory:
    """One model of this kind and size in bytes: served, called and stopped, so many times."""
    memory = Memory()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = KINDS[kind](folder, f"tiny-{kind}", 0)
        large = KINDS[kind](folder, f"large-{kind}", size)
        async with runtime(folder) as under_test:
            memory.bare = await under_test.resident()
            await _round(under_test, tiny)
            memory.baseline = await under_test.resident()
            for _ in range(rounds):
                memory.loaded.append(await _round(under_test, large))
                memory.unloaded.append(await under_test.resident())
    memory.seconds = time.monotonic() - started
    return memory


async def _round(under_test: Runtime, sample: Sample) -> int:
    key = await under_test.serve(sample)
    await under_test.call(sample)
    loaded = under_test.rss()
    await under_test.stop(key)
    return loaded


async def evictions(kind: str, rounds: int, size: int) -> Memory:
    """Two models of this size in turns, on a runtime with memory for one and a half: each pushes
    the other out.
    """
    memory = Memory()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = KINDS[kind](folder, f"tiny-{kind}", 0)
        pair = [
            KINDS[kind](folder, f"{letter}-{kind}", size + number)
            for number, letter in enumerate("ab")
        ]
        async with runtime(folder, memory_bytes=size * 3 // 2) as under_test:
            memory.bare = await under_test.resident()
            await _round(under_test, tiny)
            memory.baseline = await under_test.resident()
            for sample in pair:
                await under_test.serve(sample)
            for number in range(rounds):
                await under_test.call(pair[number % 2], calls=1)
                memory.loaded.append(await under_test.resident())
            memory.unloaded = memory.loaded
    memory.seconds = time.monotonic() - started
    return memory
