"""Tunes the rows per call so that the time in the model stays within an objective. Pure: the
current time is an argument.

Additive increase, multiplicative decrease over a table of measured times. While calls as large as
the limit meet the objective the limit grows, in smaller steps towards a size that missed lately.
After a miss it falls to the largest size known to meet the objective; after a second, to the half.
"""

from __future__ import annotations

from dataclasses import dataclass

# Weight of a new measurement against the table's average of earlier ones.
_WEIGHT = 0.5
# Seconds after which a measurement is forgotten, because load and machine change.
_FRESH_SECONDS = 30.0
# The limit grows by 1/8 of itself after a call that met the objective, at least by one row.
_STEP = 8
# Leading bits in which batch sizes of one table line agree; 4 bits are steps of 6 to 12 %.
_BITS = 4


@dataclass(slots=True)
class _Measured:
    seconds: float
    at: float


class BatchSizeTuner:
    """The limit of rows per call of one model, whose calls should take `objective` seconds."""

    def __init__(self, objective: float, max_rows: int) -> None:
        self._objective = objective
        self._max_rows = max_rows
        self._table: dict[int, _Measured] = {}
        # The limit doubles until the first miss, so that a fast model soon gets full batches.
        self._doubling = True
        # The last size that missed, and when.
        self._ceiling = max_rows + 1
        self._ceiling_at = float("-inf")
        self._missed = False
        self.limit = 1

    def expected(self, rows: int, now: float) -> float | None:
        """Returns the seconds that a call with about `rows` rows took lately; None if unknown."""
        known = self._table.get(_line(rows))
        return known.seconds if known is not None and now - known.at <= _FRESH_SECONDS else None

    def measured(self, rows: int, seconds: float, now: float) -> None:
        """Records the time that a call of `rows` rows spent in the model, and moves the limit."""
        before = self.expected(rows, now)
        smooth = seconds if before is None else before + _WEIGHT * (seconds - before)
        self._table[_line(rows)] = _Measured(smooth, now)
        if smooth > self._objective:
            # Calls larger than the limit started before it fell; their miss is known already.
            if rows <= self.limit:
                self._decrease(rows, now)
        elif 2 * rows > self.limit:
            # A call of less than half the limit does not show that the limit meets the objective.
            self._missed = False
            self._increase(now)

    def _increase(self, now: float) -> None:
        step = self.limit if self._doubling else max(1, self.limit // _STEP)
        if now - self._ceiling_at <= _FRESH_SECONDS:
            step = min(step, (self._ceiling - self.limit) // 2)
        self.limit = min(self.limit + max(0, step), self._max_rows)

    def _decrease(self, rows: int, now: float) -> None:
        # A miss with one row says nothing about growth: it may have been the model's first call.
        if rows > 1:
            self._doubling = False
            self._ceiling = rows
            self._ceiling_at = now
        half = max(1, rows // 2)
        holding = [size for size in self._table if half < size < rows and self._holds(size, now)]
        self.limit = half if self._missed else max(holding, default=half)
        self._missed = True

    def _holds(self, size: int, now: float) -> bool:
        seconds = self.expected(size, now)
        return seconds is not None and seconds <= self._objective


def _line(rows: int) -> int:
    """Returns the smallest batch size on the table line of `rows`."""
    shift = max(0, rows.bit_length() - _BITS)
    return rows >> shift << shift
