"""The entry of `python -m services.<name>`: settings, event loop, signals and exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import uvloop

from services.chassis import allocator, logs
from services.chassis.config import (
    PREFIX,
    CannotListen,
    ConfigError,
    ServiceSettings,
    load,
    misspelt,
)
from services.chassis.lifecycle.process import Process

# New container objects between two collections of the youngest generation, collections of it before
# the middle one is collected, and of that before the oldest. Python's (700, 10, 10) took a tenth of
# the gateway's time at 256 connections.
_COLLECTOR_THRESHOLDS = (10_000, 20, 50)
# Exit codes. EX_CONFIG of sysexits.h: a restart with the same settings cannot help.
UNUSABLE_SETTINGS = os.EX_CONFIG
FAILED = 1

S = TypeVar("S", bound=ServiceSettings)


def run(
    compose: Callable[[S], Awaitable[Process] | Process],
    settings: type[S],
    environ: Mapping[str, str],
) -> int:
    """Builds the process from the environment and runs it to its end; returns the exit code.

    0 after a clean stop, 78 if the settings cannot be used, 1 after any other failure. The log
    holds one line at level error for each wrong variable, or the one failure.
    """
    allocator.keep_memory_of_messages()

    async def main() -> None:
        process = compose(load(settings, environ))
        if not isinstance(process, Process):
            process = await process
        for variable, nearest in misspelt(settings, environ).items():
            process.log.warning("setting_unknown", variable=variable, nearest=nearest)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)
        settling = asyncio.create_task(_settle(process))
        try:
            await process.run()
        finally:
            settling.cancel()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except ConfigError as exc:
        log = _log(settings, environ)
        for line in str(exc).splitlines():
            variable, _, problem = line.partition(": ")
            log.error("setting_unusable", variable=variable, problem=problem)
        return UNUSABLE_SETTINGS
    except CannotListen as exc:
        _log(settings, environ).error("address_unusable", problem=str(exc))
        return FAILED
    except Exception:
        _log(settings, environ).exception("process_failed")
        return FAILED
    return 0


def _log(settings: type[ServiceSettings], environ: Mapping[str, str]) -> Any:
    """Returns a logger in the format that the environment asks for, even if it cannot be used."""
    service = settings.__module__.split(".")[1]
    style = "console" if environ.get(PREFIX + "LOG_FORMAT") == "console" else "json"
    return logs.configure(service, "", levels=logs.LogLevels("error"), style=style)


async def _settle(process: Process) -> None:
    """Exempts the objects of the start from garbage collection, and makes collections rarer; then
    returns free memory to the system whenever the process becomes idle.

    They stay to the end, so walking them again finds nothing; requests leave next to no cycles.
    """
    await process.started.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    await allocator.give_back_when_idle()
