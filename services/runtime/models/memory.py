"""The process's own memory: what a piece of work adds to it, and how what was freed goes back to
the system.

An allocator keeps freed memory for later. Of a model made of many small arrays (a forest, say) it
kept more than twice the model's size here, for good; asked for it, it gives all but a few megabytes
back.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")
# A collection stops every thread: for milliseconds, or for up to a quarter of a second where
# `spare_libraries` came too late. For less than this it is not worth it, nor where almost
# everything came back without.
_WORTH_COLLECTING = 16 * 1024 * 1024
_ALMOST_ALL = 0.95

# glibc's number of its setting for how many heaps there may be.
_ARENA_MAX = -8


def _find_glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc; None where the allocator is another one."""
    try:
        library = ctypes.CDLL(None)
        _ = library.malloc_trim, library.mallopt
    except (AttributeError, OSError, TypeError):
        return None
    return library


_GLIBC = _find_glibc()
# Python's own allocator gives memory back by the megabyte, once nothing lives in it. The
# interpreter's cache of attribute look-ups keeps names that came out of an artifact, strewn over
# all the memory that loading it needed.
_CLEAR_TYPE_CACHE: Callable[[], object] = getattr(sys, "_clear_type_cache", lambda: None)


def resident_bytes() -> int:
    """Bytes of main memory that the process has now."""
    return int(psutil.Process().memory_info().rss)


def use_one_heap() -> None:
    """Has all threads that come from now on allocate from one heap. To be called before there are
    any.

    glibc gives threads heaps of their own, and gives back the free end of the first one only.
    Threads that hold the GIL while they allocate do not stand in each other's way.
    """
    if _GLIBC is not None:
        _GLIBC.mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Has the allocators return what is free in them. It takes up to 50 ms for half a gigabyte, and
    needs no GIL.
    """
    _CLEAR_TYPE_CACHE()
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)


def release(close: Callable[[], None], expected: int) -> None:
    """Closes something that holds about so many bytes of main memory, and sees to it that they go
    back.

    Most models are gone at once. What holds itself in a cycle goes by a collection, and so do the
    remains of loading that lie between what is free. Collections stop all threads: there is one
    only if the memory does not come back.
    """
    before = resident_bytes()
    close()
    give_back()
    if expected >= _WORTH_COLLECTING and before - resident_bytes() < expected * _ALMOST_ALL:
        gc.collect()
        give_back()


def spare_libraries() -> None:
    """Exempts all that is in memory now from later collections, which then cost milliseconds where
    libraries of models are imported. To be called when no model is in memory: cycles of one would
    never be found again.
    """
    gc.collect()
    gc.freeze()


class Meter:
    """Measures by how much work makes the process grow. Growth has one owner only while nothing
    else is measured.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._running = 0

    def measure(self, work: Callable[[], T]) -> tuple[T, int | None]:
        """The work's result and the bytes that the process has more now; None if other work was
        measured meanwhile.

        Raises what the work raises.
        """
        with self._lock:
            self._begun += 1
            self._running += 1
            mine, alone = self._begun, self._running == 1
        before = resident_bytes()
        try:
            result = work()
            give_back()  # what was needed for a moment is not counted
            grown = resident_bytes() - before
        finally:
            with self._lock:
                self._running -= 1
                alone = alone and self._begun == mine
        return result, grown if alone else None
