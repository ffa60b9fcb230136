"""Deadlines in ticks of ten milliseconds: adding and taking out cost a dictionary entry each, so
that an answered request leaves nothing behind. Pure; time is an argument."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

TICK_SECONDS = 0.01


class Dated(Protocol):
    """Something with an id and a deadline, in seconds of any monotonic clock."""

    @property
    def id(self) -> str: ...
    @property
    def deadline(self) -> float: ...


T = TypeVar("T", bound=Dated)


class Deadlines(Generic[T]):
    """A timing wheel without a rim. What is added is due at the first tick after its deadline,
    never before it.
    """

    def __init__(self) -> None:
        self._ticks: dict[int, dict[str, T]] = {}
        # Every tick up to this one is empty.
        self._passed = 0

    def add(self, item: T) -> None:
        tick = int(item.deadline / TICK_SECONDS) + 1
        slot = self._ticks.get(tick)
        if slot is None:
            if not self._ticks or tick <= self._passed:
                self._passed = tick - 1
            slot = self._ticks[tick] = {}
        slot[item.id] = item

    def discard(self, item: T) -> None:
        """Takes an item out, if it is there."""
        tick = int(item.deadline / TICK_SECONDS) + 1
        slot = self._ticks.get(tick)
        if slot is not None and slot.pop(item.id, None) is not None and not slot:
            del self._ticks[tick]

    def due(self, now: float) -> list[T]:
        """Takes out and returns what is due, earliest first."""
        found: list[T] = []
        last = int(now / TICK_SECONDS)
        while self._ticks and self._passed < last:
            self._passed += 1
            found += self._ticks.pop(self._passed, {}).values()
        return found
