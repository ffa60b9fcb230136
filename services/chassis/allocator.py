"""How the C allocator treats the memory of messages. glibc's defaults map and unmap every block
above 128 KiB, and hand the top of the heap back whenever 128 KiB of it are free: each copy of a
megabyte then costs 256 page faults, several times what copying does. Here blocks of messages come
from the heap, which keeps what the next message needs.
"""

from __future__ import annotations

import ctypes

# The names that mallopt(3) gives them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# Larger blocks (the weights of models, mostly) are mapped, and are the system's again as soon as
# they are freed.
MAPPED_FROM_BYTES = 4 * 1024 * 1024
# Free memory that is kept at the top of the heap.
KEPT_BYTES = 48 * 1024 * 1024
# The heap grows by this much more than is asked for; untouched, it is no memory yet.
_AHEAD_BYTES = 16 * 1024 * 1024


def keep_memory_of_messages() -> bool:
    """Sets it up for this process; False where the allocator is another one, which then does as it
    likes.
    """
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
