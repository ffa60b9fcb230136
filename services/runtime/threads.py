"""Bounds the threads that numeric libraries start inside of one call, so that slots × threads stays the cores."""

from __future__ import annotations

import threading

import threadpoolctl  # type: ignore[import-untyped]


class ThreadLimits:
    """OpenMP keeps its limit per calling thread and libraries come with models, so each worker thread applies the
    limit itself, again after each load; in between it costs one comparison."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._generation = 1
        self._seen = threading.local()

    def invalidate(self) -> None:
        """A model was loaded."""
        self._generation += 1

    def apply(self) -> None:
        """Limits the libraries that this thread may call."""
        generation = self._generation
        if getattr(self._seen, "generation", 0) != generation:
            threadpoolctl.threadpool_limits(self._limit)
            self._seen.generation = generation
