"""The memory of a system, at rest and over time, and how long it took to start."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import psutil

from benchmarks.measurement import System

PERIOD_SECONDS = 1.0


class MemoryWatch:
    """Reads the resident memory of all processes of a system, in MB, every second while the context
    lasts.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._readings: list[tuple[float, float]] = []

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def since(self, start: float) -> list[tuple[float, float]]:
        """The readings from `start` on, by time.monotonic: seconds since then, and MB."""
        return [
            (round(when - start, 2), round(megabytes, 1))
            for when, megabytes in self._readings
            if when >= start
        ]

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD_SECONDS):
            pids = [pid for part in self._system.parts().values() for pid in part]
            self._readings.append((time.monotonic(), resident(pids)))


@dataclass(frozen=True, slots=True)
class Start:
    """B10: what a system takes before anybody asks for anything. Memory in MB, what processes share
    counted once.
    """

    seconds: float
    memory: float
    memory_parts: Mapping[str, float]


def start_of(system: System) -> Start:
    """To be called as soon as the system is ready; the time counts from the start of its first
    process.
    """
    parts = {name: [psutil.Process(pid) for pid in pids] for name, pids in system.parts().items()}
    began = min(process.create_time() for processes in parts.values() for process in processes)
    seconds = time.time() - began
    memory = {
        name: sum(_proportional(process) for process in processes)
        for name, processes in parts.items()
    }
    return Start(seconds, sum(memory.values()), memory)


def _proportional(process: psutil.Process) -> float:
    """Its own memory and its share of what it shares, in MB."""
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def resident(pids: Sequence[int]) -> float:
    """Resident memory of processes together, in MB; what they share counts for each."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6
