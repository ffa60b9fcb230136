"""Which of the things that are kept goes when room is needed: the least recently used, never one in
use. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


class NoRoom(Exception):
    """What is in use leaves too little room."""

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(f"{needed} of {capacity}")
        self.needed, self.capacity = needed, capacity


@dataclass(slots=True)
class _Entry:
    size: int
    leases: int


class LruBytes(Generic[K]):
    """Sizes and leases by key. The sum of sizes never exceeds the capacity; every refusal leaves
    all as it was.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._entries: OrderedDict[K, _Entry] = OrderedDict()  # least recently used first

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> list[K]:
        """All keys, least recently used first."""
        return list(self._entries)

    def size(self, key: K) -> int:
        """The size it is kept with."""
        return self._entries[key].size

    def leases(self, key: K) -> int:
        """How many use it now; 0 for what is not kept."""
        entry = self._entries.get(key)
        return entry.leases if entry is not None else 0

    def add(self, key: K, size: int) -> list[K]:
        """Keeps a new key with one lease. Returns the keys that went for it; raises NoRoom."""
        if key in self._entries:
            raise KeyError(key)
        gone = self._make_room(size)
        self._entries[key] = _Entry(size, 1)
        self.used += size
        return gone

    def resize(self, key: K, size: int) -> list[K]:
        """Corrects the size of a leased key. Returns the keys that went for it; raises NoRoom."""
        entry = self._entries[key]
        gone = self._make_room(size - entry.size)
        self.used += size - entry.size
        entry.size = size
        return gone

    def lease(self, key: K) -> bool:
        """Marks the key as used by one more, and as most recently used; False if it is not kept."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry.leases += 1
        self._entries.move_to_end(key)
        return True

    def release(self, key: K) -> None:
        """Takes a lease back."""
        entry = self._entries[key]
        if entry.leases <= 0:
            raise ValueError(f"{key!r} is not leased")
        entry.leases -= 1

    def remove(self, key: K) -> None:
        """Forgets the key, whoever uses it."""
        self.used -= self._entries.pop(key).size

    def _make_room(self, extra: int) -> list[K]:
        gone: list[K] = []
        free = self.capacity - self.used
        for key, entry in self._entries.items():
            if free >= extra:
                break
            if entry.leases == 0:
                gone.append(key)
                free += entry.size
        if free < extra:
            raise NoRoom(extra, self.capacity)
        for key in gone:
            self.remove(key)
        return gone
