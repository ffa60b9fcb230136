"""Has the C allocator keep the memory of messages while there are any, and give it back afterwards.

glibc's defaults map and unmap every block above 128 KiB, and return the top of the heap whenever
128 KiB of it are free. Each copy of a megabyte then costs 256 page faults, several times the copy
itself. With these settings messages live on the heap, and the heap keeps memory for the next one.
"""

from __future__ import annotations

import asyncio
import ctypes
import time

# The numbers of mallopt(3) for its options.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
# Bytes. Larger blocks, mostly the weights of models, are mapped and return to the system as soon as
# they are freed.
MAPPED_FROM_BYTES = 4 * 1024 * 1024
# Bytes of free memory that stay at the top of the heap.
KEPT_BYTES = 48 * 1024 * 1024
# Bytes by which the heap grows beyond what is asked for; untouched, they take no memory.
_AHEAD_BYTES = 16 * 1024 * 1024
# Seconds between two looks at whether the process is idle, and the share of one processor below
# which it was idle in between. Checks of health and scrapes of metrics take less than 0.02.
_LOOK_SECONDS = 10.0
_IDLE_SHARE = 0.05


def _find_glibc() -> ctypes.CDLL | None:
    """Returns the C library if it is glibc, None with another allocator."""
    try:
        library = ctypes.CDLL(None)
        _ = library.malloc_trim, library.mallopt
    except (AttributeError, OSError, TypeError):
        return None
    return library


_GLIBC = _find_glibc()


def _set(options: dict[int, int]) -> bool:
    """Sets options of mallopt(3); returns False if the allocator does not know them."""
    if _GLIBC is None:
        return False
    taken = [bool(_GLIBC.mallopt(option, value)) for option, value in options.items()]
    return all(taken)


def keep_memory_of_messages() -> bool:
    """Sets the options for this process; returns False if its allocator does not know them."""
    return _set(
        {
            _MMAP_THRESHOLD: MAPPED_FROM_BYTES,
            _TRIM_THRESHOLD: KEPT_BYTES,
            _TOP_PAD: _AHEAD_BYTES,
        }
    )


def use_one_heap() -> None:
    """Makes all later threads allocate from one heap. Call it before any thread starts.

    glibc gives threads heaps of their own, but returns only the free end of the first one. Threads
    that hold the GIL while they allocate do not contend for the one heap.
    """
    _set({_ARENA_MAX: 1})


def give_back() -> None:
    """Returns free memory to the system. Takes up to 50 ms for 512 MiB, without the GIL."""
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)


class IdleWatch:
    """Tells when a process has become idle, by the processor time that it takes."""

    def __init__(self, spent: float) -> None:
        """Begins busy, with the processor seconds `spent` so far."""
        self._spent = spent
        self._idle = False

    def has_become_idle(self, spent: float) -> bool:
        """Returns, _LOOK_SECONDS after the last call, whether the process was idle in between but
        not before.
        """
        was_idle = self._idle
        self._idle = spent - self._spent < _IDLE_SHARE * _LOOK_SECONDS
        self._spent = spent
        return self._idle and not was_idle


async def give_back_when_idle() -> None:
    """Returns free memory to the system each time that the process becomes idle, for ever."""
    watch = IdleWatch(time.process_time())
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if watch.has_become_idle(time.process_time()):
            await asyncio.to_thread(give_back)
