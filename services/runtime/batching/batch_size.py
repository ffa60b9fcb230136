"""Keeps the rows of a call where the model's time stays within an objective. Pure: time is an
argument.

Additive increase, multiplicative decrease over a table of measured times. While calls as large as
the limit hold the objective it grows, in smaller steps towards a size that missed it lately; when
one misses, the limit falls to the largest size that is known to hold, and to the half if that
misses too.
"""

from __future__ import annotations

from dataclasses import dataclass

# A new measurement's weight against what the table says.
_WEIGHT = 0.5
# What a size took is not known for longer than this: load and machine change.
_FRESH_SECONDS = 30.0
# A limit that held grows by this part of itself, at least by one row.
_STEP = 8
# Sizes that share a line of the table agree in so many leading bits.
_BITS = 4


@dataclass(slots=True)
class _Measured:
    seconds: float
    at: float


class BatchTuner:
    """Rows per call for one model under an objective of seconds in the model."""

    def __init__(self, objective: float, max_rows: int) -> None:
        self._objective = objective
        self._max_rows = max_rows
        self._table: dict[int, _Measured] = {}
        # Until the first miss the limit doubles, so that a fast model is soon called with all it
        # can take.
        self._doubling = True
        # The last size that missed, and when.
        self._ceiling, self._ceiling_at = max_rows + 1, float("-inf")
        self._missed = False
        self.limit = 1

    def expected(self, rows: int, now: float) -> float | None:
        """Seconds that a call with about so many rows took lately; None if none was measured."""
        known = self._table.get(_line(rows))
        return known.seconds if known is not None and now - known.at <= _FRESH_SECONDS else None

    def measured(self, rows: int, seconds: float, now: float) -> None:
        """Takes note of a call's time in the model and moves the limit."""
        before = self.expected(rows, now)
        smooth = seconds if before is None else before + _WEIGHT * (seconds - before)
        self._table[_line(rows)] = _Measured(smooth, now)
        if smooth > self._objective:
            # Calls larger than the limit were on their way when it fell; what they say is known
            # already.
            if rows <= self.limit:
                self._decrease(rows, now)
        elif 2 * rows > self.limit:
            # A smaller call does not say whether the limit would hold.
            self._missed = False
            self._increase(now)

    def _increase(self, now: float) -> None:
        step = self.limit if self._doubling else max(1, self.limit // _STEP)
        if now - self._ceiling_at <= _FRESH_SECONDS:
            step = min(step, (self._ceiling - self.limit) // 2)
        self.limit = min(self.limit + max(0, step), self._max_rows)

    def _decrease(self, rows: int, now: float) -> None:
        # A miss of the smallest call says nothing about growing; it may have been the model's
        # first.
        if rows > 1:
            self._doubling = False
            self._ceiling, self._ceiling_at = rows, now
        half = max(1, rows // 2)
        holding = [size for size in self._table if half < size < rows and self._holds(size, now)]
        self.limit = half if self._missed else max(holding, default=half)
        self._missed = True

    def _holds(self, size: int, now: float) -> bool:
        seconds = self.expected(size, now)
        return seconds is not None and seconds <= self._objective


def _line(rows: int) -> int:
    """The smallest size of those that share a line of the table."""
    shift = max(0, rows.bit_length() - _BITS)
    return rows >> shift << shift
