"""`stellwerk up` in a process of its own, with the stand-ins of this folder in place of the five
services.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.local import ports

FAKES = Path(__file__).parent
ROOT = Path(__file__).parents[3]


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Polls until the condition holds and gives its value; fails when the time is up."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, (
            "the condition did not come true in time"
        )
        await asyncio.sleep(0.02)
    return value


@dataclass
class Up:
    """A platform that was started."""

    process: asyncio.subprocess.Process
    data_dir: Path

    async def ready(self) -> dict[str, Any]:
        """What it says when it is ready."""
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), 100)
        except TimeoutError:
            raise AssertionError(f"not ready after 100 s:\n{await self._last_words()}") from None
        return dict(json.loads(line))

    async def said(self, event: str) -> dict[str, Any]:
        """The next line of its log with this event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(100):
            async for line in self.process.stderr:
                record = json.loads(line)
                if record["event"] == event:
                    return dict(record)
        raise AssertionError(f"it ended without saying {event}")

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, the rest of standard output, standard error."""
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()

    async def _last_words(self) -> str:
        """Ends it; gives its standard error and the ends of all logs."""
        self.process.kill()
        _, err = await self.process.communicate()
        logs = sorted(self.data_dir.rglob("*.log"))
        told = [f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs]
        return "\n".join([err.decode(errors="replace"), *told])

    def report(self) -> dict[str, Any]:
        """What the file says that is there while it is ready."""
        return dict(json.loads((self.data_dir / "ready.json").read_text()))

    def told(self, name: str) -> dict[str, str]:
        """The STELLWERK_* variables that a process was started with."""
        return dict(json.loads((self.data_dir / "run" / f"{name}.env.json").read_text()))


Start = Callable[..., Any]


def command(*arguments: str) -> list[str]:
    """The command line of `stellwerk up`."""
    return [sys.executable, "-m", "services.local", "up", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """An environment in which the services' processes find the stand-ins; `stellwerk up` itself
    finds the product in the folder it starts in.
    """
    paths = (FAKES, ROOT / "generated", ROOT / "sdk")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STELLWERK_")}
    return {**ours, "PYTHONPATH": os.pathsep.join(map(str, paths)), **variables}


async def starter(tmp_path: Path, *always: str) -> AsyncIterator[Start]:
    """Starts platforms in `tmp_path/data`, with `always` and what a test adds; what still runs at
    the end is killed.
    """
    started: list[Up] = []

    async def begin(*arguments: str, **variables: str) -> Up:
        http, grpc = ports.reserve(2)
        options = ["--http-port", str(http), "--grpc-port", str(grpc)]
        options += ["--data-dir", str(tmp_path / "data")]
        process = await asyncio.create_subprocess_exec(
            *command(*options, *always, *arguments),
            env=environment(**variables),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        started.append(Up(process, tmp_path / "data"))
        return started[-1]

    yield begin
    for platform in started:
        if platform.process.returncode is None:
            platform.process.kill()
            await platform.process.communicate()
