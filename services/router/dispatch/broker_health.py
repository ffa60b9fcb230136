"""Whether the broker can be used, and since when it cannot. Time is an argument, in seconds of any
monotonic clock.
"""

from __future__ import annotations

from typing import Protocol

# A broker that is back by then was hardly away: what came meanwhile waits for it. Later, callers
# are told at once.
_PATIENCE_SECONDS = 3.0


class Troubled(Protocol):
    """A broker, as far as this goes."""

    @property
    def problem(self) -> str: ...


class Outage:
    """Remembers since when the broker has had a problem."""

    def __init__(self, broker: Troubled) -> None:
        self._broker = broker
        self._since: float | None = None

    def seen(self, now: float) -> bool:
        """Looks; True if the broker cannot be used now."""
        if not self._broker.problem:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return True

    def lasts(self, now: float) -> str:
        """The problem if it has lasted too long to wait for its end, otherwise "". Looks only while
        there is one.
        """
        if self._since is None or not self.seen(now) or now - self._since < _PATIENCE_SECONDS:
            return ""
        return self._broker.problem
