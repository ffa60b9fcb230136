"""The memory of a system over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

import psutil

from benchmarks.measurement import System

PERIOD_SECONDS = 1.0


class MemoryWatch:
    """Reads the resident memory of all processes of a system, in MB, every second while the context lasts."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._readings: list[tuple[float, float]] = []

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def since(self, start: float) -> list[tuple[float, float]]:
        """The readings from `start` on, by time.monotonic: seconds since then, and MB."""
        return [(round(when - start, 2), round(megabytes, 1)) for when, megabytes in self._readings if when >= start]

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD_SECONDS):
            pids = [pid for part in self._system.parts().values() for pid in part]
            self._readings.append((time.monotonic(), resident(pids)))


def resident(pids: Sequence[int]) -> float:
    """Resident memory of processes together, in MB; what they share counts for each."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6
