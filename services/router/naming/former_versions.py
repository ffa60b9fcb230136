"""What names meant until a moment ago: while a new version is being loaded, the one before it can
still answer.

See docs/decisions/0021. Pure; time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.wire.names import ModelName

# So long calls wait for the new version: who stored it and calls it at once is answered by it, if
# it loads as models mostly do. Afterwards the one before answers at once.
PATIENCE_SECONDS = 2.0
# The share of its time that a call waits at most.
_SHARE = 0.5
# Versions in a row that were stored faster than they could be loaded.
_MOST_FORMER = 4
_MOST_NAMES = 10_000


@dataclass(slots=True)
class Change:
    """A name that means something else since this time."""

    since: float
    # What it meant, the newest first.
    former: list[messages.ModelVersion] = field(default_factory=list)

    def patience(self, now: float, deadline: float) -> float:
        """Until when a call with this deadline waits for the new version."""
        return min(self.since + PATIENCE_SECONDS, now + (deadline - now) * _SHARE)


class Turnover:
    """The names whose new version has not answered yet. Empty nearly always."""

    def __init__(self) -> None:
        self._changes: OrderedDict[ModelName, Change] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._changes)

    def of(self, name: ModelName) -> Change | None:
        """The name's change, None for one that is settled."""
        return self._changes.get(name)

    def changed(self, name: ModelName, former: messages.ModelVersion, now: float) -> None:
        """The name does not mean this version any more."""
        change = self._changes.setdefault(name, Change(now))
        change.since = now
        change.former = [former, *change.former][:_MOST_FORMER]
        if len(self._changes) > _MOST_NAMES:
            self._changes.popitem(last=False)

    def settled(self, name: ModelName) -> None:
        """The new version answers: nothing before it is to answer again."""
        self._changes.pop(name, None)

    def forget(self, parent: str) -> None:
        """Versions or names of this model are gone: none of what its names meant is to answer."""
        for name in [name for name in self._changes if name.parent == parent]:
            del self._changes[name]

    def clear(self) -> None:
        """Forgets everything."""
        self._changes.clear()
