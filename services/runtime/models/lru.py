"""Accounts for sizes and leases, and evicts the least recently used keys without leases. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


class NoRoom(Exception):
    """Raised when leased keys leave less than `needed` bytes of the capacity."""

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(f"{needed} of {capacity}")
        self.needed = needed
        self.capacity = capacity


@dataclass(slots=True)
class _Entry:
    size: int
    leases: int


class LruBytes(Generic[K]):
    """Sizes and leases by key; the sizes never exceed the capacity. A refusal changes nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        # Least recently used first.
        self._entries: OrderedDict[K, _Entry] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> list[K]:
        """Returns all keys, least recently used first."""
        return list(self._entries)

    def size(self, key: K) -> int:
        """Returns the size of a kept key."""
        return self._entries[key].size

    def leases(self, key: K) -> int:
        """Returns the number of leases on the key; 0 for one that is not kept."""
        entry = self._entries.get(key)
        return entry.leases if entry is not None else 0

    def add(self, key: K, size: int) -> list[K]:
        """Adds a new key with one lease. Returns the keys evicted for it. Raises NoRoom."""
        if key in self._entries:
            raise KeyError(key)
        gone = self._make_room(size)
        self._entries[key] = _Entry(size, 1)
        self.used += size
        return gone

    def resize(self, key: K, size: int) -> list[K]:
        """Changes the size of a leased key. Returns the keys evicted for it. Raises NoRoom."""
        entry = self._entries[key]
        gone = self._make_room(size - entry.size)
        self.used += size - entry.size
        entry.size = size
        return gone

    def lease(self, key: K) -> bool:
        """Adds a lease and marks the key as most recently used. Returns False if it is not kept."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry.leases += 1
        self._entries.move_to_end(key)
        return True

    def release(self, key: K) -> None:
        """Ends a lease. Raises ValueError if the key has none."""
        entry = self._entries[key]
        if entry.leases <= 0:
            raise ValueError(f"{key!r} is not leased")
        entry.leases -= 1

    def remove(self, key: K) -> None:
        """Removes the key, leased or not."""
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
