"""Bounds the threads that numeric libraries start inside of one call, so that slots × threads stays
the cores.
"""

from __future__ import annotations

import threading

import threadpoolctl  # type: ignore[import-untyped]


class ThreadLimits:
    """OpenMP keeps its limit per calling thread, OpenBLAS one for the process that only the first
    thread to ask may set. So the thread that loads models sets it after each load, which may bring
    new libraries, and each worker thread sets its own before its next call; in between that costs
    one comparison."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._generation = 1
        self._seen = threading.local()

    def refresh(self) -> None:
        """A model was loaded. To be called in the one thread that loads, before any worker thread
        calls a model.
        """
        threadpoolctl.threadpool_limits(self._limit)
        self._generation += 1

    def apply(self) -> None:
        """Limits the libraries that this thread may call."""
        generation = self._generation
        if getattr(self._seen, "generation", 0) != generation:
            threadpoolctl.threadpool_limits(self._limit)
            self._seen.generation = generation
