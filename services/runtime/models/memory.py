"""Measures how work grows the process, and returns freed memory to the system.

Allocators keep freed memory. After a model of many small arrays, such as a forest, glibc kept more
than twice the model's size for good; asked to trim, it returns all but a few megabytes. See
docs/decisions/0020.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import psutil

from services.chassis import allocator

T = TypeVar("T")
# A garbage collection stops every thread: for milliseconds, or for up to 250 ms where
# `spare_libraries` came too late. A model of fewer bytes than this is not worth one.
_WORTH_COLLECTING = 16 * 1024 * 1024
# Nor is a model of whose bytes at least this share came back without one.
_ALMOST_ALL = 0.95

# Python's allocator returns memory by the megabyte, once nothing lives in it. The interpreter's
# cache of attribute look-ups keeps names out of an artifact alive, scattered over that memory.
_CLEAR_TYPE_CACHE: Callable[[], object] = getattr(sys, "_clear_type_cache", lambda: None)


def resident_bytes() -> int:
    """Returns the bytes of main memory that the process holds now."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Returns free memory to the system. Takes up to 50 ms for 512 MiB, without the GIL."""
    _CLEAR_TYPE_CACHE()
    allocator.give_back()


def release(close: Callable[[], None], expected: int) -> None:
    """Closes a model of about `expected` bytes and returns its memory to the system.

    Most models are freed at once. Reference cycles, and remains of the load between free blocks,
    need a garbage collection. That stops all threads, so there is one only if the memory does not
    come back without.
    """
    before = resident_bytes()
    close()
    give_back()
    if expected >= _WORTH_COLLECTING and before - resident_bytes() < expected * _ALMOST_ALL:
        gc.collect()
        give_back()


def spare_libraries() -> None:
    """Exempts all present objects from later garbage collections, which then take milliseconds.

    Call it after the import of libraries, when no model is in memory: cycles of an exempted model
    would never be found.
    """
    gc.collect()
    gc.freeze()


class Meter:
    """Measures by how many bytes work grows the process, if no other work is measured meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._running = 0

    def measure(self, work: Callable[[], T]) -> tuple[T, int | None]:
        """Returns the work's result and the growth in bytes, or None for the growth.

        It is None if other work was measured meanwhile. Raises what the work raises.
        """
        with self._lock:
            self._begun += 1
            self._running += 1
            mine, alone = self._begun, self._running == 1
        before = resident_bytes()
        try:
            result = work()
            give_back()  # temporary memory of the work is not growth
            grown = resident_bytes() - before
        finally:
            with self._lock:
                self._running -= 1
                alone = alone and self._begun == mine
        return result, grown if alone else None
