"""Resident memory of gateway and router while a platform is asked for four times what it can do.

Small, middle and large tensors are mixed: calls that share groups, calls that travel alone, and
calls that take the stream of large requests. Everything goes through the HTTP door.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks import open_loop, overload, rest_load
from benchmarks.arrivals import Step
from benchmarks.measurement import RestCall
from benchmarks.open_loop import Sample
from benchmarks.slow_work import OurSleeper

FACTOR = 4.0
# Processes whose memory is read.
WATCHED = ("api_gateway", "router")
# FP64 values of a tensor, and the share of calls that carry it. 8 bytes may share a group, 32 KiB
# travel alone, and 512 KiB take the stream of large requests.
MIX = {1: 0.94, 4096: 0.05, 65536: 0.01}
# Seconds of overload in which memory may grow to its level.
WARM_SECONDS = 60.0
# Seconds of readings whose median is one figure: many requests come and go within them.
_WINDOW_SECONDS = 20.0
_PERIOD_SECONDS = 0.5
# Seconds without load after which memory is read again: deadlines are 2 s, and caches are kept.
_REST_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Level:
    """Resident bytes of one process."""

    # With the model loaded, after one call of each size.
    start: int
    # Medians of the windows under overload after WARM_SECONDS.
    windows: Sequence[float]
    # The highest reading of the whole overload.
    most: int
    # After the overload and a rest.
    end: int

    @property
    def spread(self) -> float:
        """Returns the share by which the highest window lies above the lowest."""
        return max(self.windows) / min(self.windows) - 1

    @property
    def growth(self) -> float:
        """Returns the share of the start's memory that is left behind."""
        return self.end / self.start - 1


@dataclass(frozen=True, slots=True)
class Found:
    """Memory by process, and the requests by how they ended."""

    levels: Mapping[str, Level]
    outcomes: Mapping[str, int]
    # Requests a second that the platform can answer.
    capacity: float


class _Watch:
    """Reads the resident bytes of processes until it is closed."""

    def __init__(self, processes: Mapping[str, psutil.Process], told: Callable[[str], None]):
        self._processes = processes
        self._told = told
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        # Seconds since the start, and bytes, by process.
        self.readings: list[tuple[float, dict[str, int]]] = []

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(_PERIOD_SECONDS):
            found = _resident(self._processes)
            self.readings.append((time.monotonic() - began, found))
            if len(self.readings) % round(_WINDOW_SECONDS / _PERIOD_SECONDS) == 0:
                sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in found.items())
                self._told(f"{time.monotonic() - began:.0f} s of overload: {sizes}")


def measure(seconds: float, broker: str, progress: Callable[[str], None]) -> Found:
    """Overloads a platform for `seconds`, which must be more than WARM_SECONDS and a window."""
    system = OurSleeper(broker)
    try:
        processes = {name: psutil.Process(system.parts()[name][0]) for name in WATCHED}
        for size in MIX:
            # The first call loads the model, which takes longer than a deadline under load.
            rest_load.check(f"{size} values", system.call(overload.WORK_SECONDS, 60.0, size))
        calls = {
            size: system.call(overload.WORK_SECONDS, overload.DEADLINE_SECONDS, size)
            for size in MIX
        }
        time.sleep(_REST_SECONDS / 4)
        start = _resident(processes)
        capacity = overload.find_capacity("the platform", calls[1], 4.0, progress)
        with _Watch(processes, progress) as watch:
            outcomes = _overload(calls, FACTOR * capacity, seconds)
        time.sleep(_REST_SECONDS)
        end = _resident(processes)
        levels = {name: _level(name, start, end, watch.readings, seconds) for name in WATCHED}
        return Found(levels, outcomes, capacity)
    finally:
        system.stop()


def _overload(calls: Mapping[int, RestCall], rate: float, seconds: float) -> dict[str, int]:
    """Sends the mix at `rate` calls a second; returns the calls by how they ended."""

    def send(size: int) -> Sequence[Sample]:
        steps = [Step(MIX[size] * rate, seconds)]
        return open_loop.run(calls[size], steps, overload.DEADLINE_SECONDS).samples

    outcomes = dict.fromkeys(open_loop.OUTCOMES, 0)
    with ThreadPoolExecutor(len(calls)) as threads:
        for samples in threads.map(send, calls):
            for sample in samples:
                outcomes[sample.outcome] += 1
    return {str(outcome): count for outcome, count in outcomes.items() if count}


def _resident(processes: Mapping[str, psutil.Process]) -> dict[str, int]:
    return {name: int(process.memory_info().rss) for name, process in processes.items()}


def _level(
    name: str,
    start: Mapping[str, int],
    end: Mapping[str, int],
    readings: Sequence[tuple[float, Mapping[str, int]]],
    seconds: float,
) -> Level:
    windows: dict[int, list[int]] = {}
    for at, found in readings:
        if WARM_SECONDS <= at < seconds:
            windows.setdefault(int((at - WARM_SECONDS) / _WINDOW_SECONDS), []).append(found[name])
    most = max(found[name] for _, found in readings)
    return Level(start[name], [median(window) for window in windows.values()], most, end[name])
