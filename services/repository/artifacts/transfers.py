"""How many artifacts may be on their way at a time: memory is bounded by refusing, not by
hoping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.repository.metrics import Gauges
from stellwerk.wire.errors import Overloaded


class Transfers:
    """The places for transfers."""

    def __init__(self, places: int, gauges: Gauges) -> None:
        self._places, self._gauges = places, gauges
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds one place. Raises Overloaded when none is free."""
        if self._taken >= self._places:
            raise Overloaded(
                "too many artifacts are on their way; try again in a moment", limit=self._places
            )
        self._taken += 1
        self._gauges.transfers.set(self._taken)
        try:
            yield
        finally:
            self._taken -= 1
            self._gauges.transfers.set(self._taken)
