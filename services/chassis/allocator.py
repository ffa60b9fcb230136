"""Has the C allocator keep the memory of messages.

glibc's defaults map and unmap every block above 128 KiB, and return the top of the heap whenever
128 KiB of it are free. Each copy of a megabyte then costs 256 page faults, several times the copy
itself. With these settings messages live on the heap, and the heap keeps memory for the next one.
"""

from __future__ import annotations

import ctypes

# The numbers of mallopt(3) for its options.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# Bytes. Larger blocks, mostly the weights of models, are mapped and return to the system as soon as
# they are freed.
MAPPED_FROM_BYTES = 4 * 1024 * 1024
# Bytes of free memory that stay at the top of the heap.
KEPT_BYTES = 48 * 1024 * 1024
# Bytes by which the heap grows beyond what is asked for; untouched, they take no memory.
_AHEAD_BYTES = 16 * 1024 * 1024


def keep_memory_of_messages() -> bool:
    """Sets the options for this process; returns False if its allocator does not know them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = {
        _MMAP_THRESHOLD: MAPPED_FROM_BYTES,
        _TRIM_THRESHOLD: KEPT_BYTES,
        _TOP_PAD: _AHEAD_BYTES,
    }
    taken = [bool(mallopt(option, value)) for option, value in wanted.items()]
    return all(taken)
