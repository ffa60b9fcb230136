"""How `python -m services.<name>` begins and ends: settings, event loop, signals, exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import uvloop

from services.chassis.config import ConfigError, ServiceSettings, load
from services.chassis.process import Process

S = TypeVar("S", bound=ServiceSettings)


def run(compose: Callable[[S], Awaitable[Process] | Process], settings: type[S], environ: Mapping[str, str]) -> int:
    """Builds the process from the environment and runs it to its end; returns the exit code.

    0 after a clean stop, 2 when the settings are wrong, with one line for each wrong variable.
    """

    async def main() -> None:
        process = compose(load(settings, environ))
        if not isinstance(process, Process):
            process = await process
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)
        await process.run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except ConfigError as exc:
        print(f"the settings cannot be used:\n{exc}", file=sys.stderr)
        return 2
    return 0
