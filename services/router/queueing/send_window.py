"""The send window: how much work of one queue may be with the broker unanswered.

Work that is sent can no longer be put in order, expired or taken back, so the window is as small
as keeps the runtimes busy. It is fitted to the replies while they come: to how fast the runtimes
answer (`ServiceRate`) and to the sizes of their calls (`CallSizes`); see decision 18. Pure; time is
an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from stellwerk.job.v1 import work_pb2

# Seconds after which an observation weighs 1/e of a new one …
_MEMORY_SECONDS = 1.0
# … except that a slow model's latest observations, about this number, count however old they are.
_MEMORY_OBSERVATIONS = 8
# Observations and seconds of them before a rate is known; until then nobody is refused for it.
_KNOWN_OBSERVATIONS = 4
_KNOWN_SECONDS = 0.1
# Seconds without a reply after which a rate is forgotten: the model or its fleet may be another.
_FORGET_SECONDS = 30.0
# A gap between replies counts for this many usual gaps at most, or for this many seconds if that
# is longer, so that one stall does not look like a slow model.
_GAP_FACTOR = 8
_GAP_SECONDS = 0.5
# Seconds for which the fastest reply is remembered, at least; twice as many at most.
_FASTEST_OF_SECONDS = 5.0

# Cost per slot before any reply: a runtime that batches shows within a few calls what it needs.
_FIRST_PER_SLOT = 16
# Seconds of work that the window holds where a call takes next to no time: enough for a round trip
# through the broker, and for envelopes that are worth sending.
_ROUND_TRIP_SECONDS = 0.01
# A larger call is better if it saves this share of the time that a request takes.
_WORTH_SAVING = 0.1
# Weight of the newest call of its size in the moving average.
_NEWEST = 0.2

# Reasons of errors that a runtime answers with before it works on a request.
_UNWORKED = frozenset(("DEADLINE_PASSED", "OVERLOADED", "UNAVAILABLE", "CANCELLED"))


class ServiceRate:
    """The cost that the runtimes of one model answer per second, and the time of a reply at best.

    Only time in which work was kept waiting counts: a model that is asked ten times a second is not
    a model that can answer no more. Runtimes come and go, so the rate is kept per slot.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._fastest = math.inf
        self._fastest_before = math.inf
        self._fastest_since = -math.inf
        self._reset()

    def _reset(self) -> None:
        self._work = 0.0
        self._slot_seconds = 0.0
        self._seconds = 0.0
        self._observations = 0.0

    def answered(self, now: float, cost: int, slots: int, *, saturated: bool) -> None:
        """Records replies worth `cost` of `slots` slots. `saturated`: more work than was under way
        was wanted ever since the replies before.
        """
        gap = now - self._last
        self._last = now
        if gap > _FORGET_SECONDS:
            self._reset()
            return
        if not saturated:
            return
        if self._observations:
            gap = min(gap, max(_GAP_SECONDS, _GAP_FACTOR * self._seconds / self._observations))
        kept = max(math.exp(-gap / _MEMORY_SECONDS), 1 - 1 / _MEMORY_OBSERVATIONS)
        self._work = self._work * kept + cost
        self._slot_seconds = self._slot_seconds * kept + gap * slots
        self._seconds = self._seconds * kept + gap
        self._observations = self._observations * kept + 1

    def took(self, now: float, seconds: float) -> None:
        """Records a reply that came `seconds` after its request was sent."""
        if now - self._fastest_since > _FASTEST_OF_SECONDS:
            self._fastest_before = self._fastest
            self._fastest = math.inf
            self._fastest_since = now
        self._fastest = min(self._fastest, seconds)

    def rate(self, slots: int) -> float:
        """Returns the cost per second that `slots` busy slots answer, 0 while that is not known."""
        if self._observations < _KNOWN_OBSERVATIONS or self._seconds < _KNOWN_SECONDS:
            return 0.0
        return self._work / self._slot_seconds * slots

    @property
    def fastest(self) -> float:
        """Seconds of the fastest recent reply, 0 while none is known."""
        fastest = min(self._fastest, self._fastest_before)
        return fastest if fastest < math.inf else 0.0


class CallSizes:
    """Seconds per call by its size, in classes of powers of two."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[float, float]] = {}

    def observe(self, size: float, seconds: float) -> None:
        """Records a call of requests whose costs sum up to `size`."""
        number = int(size).bit_length()
        known = self._classes.get(number)
        if known is not None:
            size = known[0] + (size - known[0]) * _NEWEST
            seconds = known[1] + (seconds - known[1]) * _NEWEST
        self._classes[number] = (size, seconds)

    def best(self, turn: float) -> float:
        """Returns the smallest size that no larger one beats by much, 0 if no call was seen.

        `turn` is the seconds of a slot that a unit of cost takes in all; 0 compares calls with each
        other alone. A call of next to no time need not be larger, whatever share of it that saves.
        """
        least = None
        best = 0.0
        for number in sorted(self._classes, reverse=True):
            size, seconds = self._classes[number]
            each = seconds / size
            if least is None or each - least <= _WORTH_SAVING * max(turn, least):
                best = size
            least = each if least is None else min(least, each)
        return best


def window(sizes: CallSizes, rate: float, slots: int, *, reports: bool, per_slot: int) -> int:
    """Returns the cost that may be unanswered for `slots` slots, at most `per_slot` each.

    `rate` is in cost per second, 0 if not known. Every slot has a call running and one waiting; of
    the waiting work a slot can make a larger call than before, to see whether that pays. A single
    slot needs one call more for that. `reports`: the runtimes tell of their calls; for those that
    do not, only the bound holds.
    """
    bound = per_slot * slots
    if not reports:
        return bound
    best = sizes.best(slots / rate if rate else 0.0)
    if not best:
        return min(bound, _FIRST_PER_SLOT * slots)
    return max(1, min(bound, int(max(max(2 * slots, 3) * best, rate * _ROUND_TRIP_SECONDS))))


class Landed(Protocol):
    """Requests that one reply answers."""

    @property
    def cost(self) -> int:
        """The cost of each."""
        ...

    @property
    def count(self) -> int:
        """Their number."""
        ...

    @property
    def sent_at(self) -> float:
        """The time at which they were sent."""
        ...


class SendWindow:
    """The window of one queue. Its attributes change with `adjust` alone."""

    def __init__(self, per_slot: int, slots: int) -> None:
        """Starts before any reply. `per_slot` bounds the cost that is unanswered for a slot."""
        self._per_slot = per_slot
        self._service = ServiceRate()
        self._sizes = CallSizes()
        # Whether the runtimes tell of their calls; None before the first reply.
        self._reports: bool | None = None
        self._fit(slots)

    def adjust(
        self,
        landed: Iterable[tuple[Landed, work_pb2.WorkReply]],
        slots: int,
        now: float,
        *,
        saturated: bool,
    ) -> None:
        """Fits the window to the first replies to requests and to the slots there are now.

        `saturated` is as for `ServiceRate.answered`.
        """
        cost = 0
        for requests, reply in landed:
            cost += self._record(requests, reply, now)
        if cost:
            self._service.answered(now, cost, self.slots, saturated=saturated)
            self._reports = bool(self._reports)
        self._fit(slots)

    def _record(self, requests: Landed, reply: work_pb2.WorkReply, now: float) -> int:
        """Returns the cost that a runtime worked off for a reply, 0 if it did no work."""
        if reply.HasField("error") and reply.error.reason in _UNWORKED:
            return 0
        # Figures of a model call stand in the reply to the first of its requests.
        if reply.leads and reply.compute_ns:
            self._reports = True
            rows = reply.rows or 1
            size = max(1.0, (reply.batch_rows or rows) / rows * requests.cost)
            self._sizes.observe(size, reply.compute_ns / 1e9)
            self._service.took(now, now - requests.sent_at)
        return requests.cost * requests.count

    def _fit(self, slots: int) -> None:
        # Calls that the ready runtimes make at a time, at least one.
        self.slots = max(1, slots)
        # Cost per second, 0 while it is not known.
        self.rate = self._service.rate(self.slots)
        # Seconds of the fastest recent reply, 0 while none is known.
        self.fastest = self._service.fastest
        # The cost that may be unanswered.
        self.size = window(
            self._sizes,
            self.rate,
            self.slots,
            reports=self._reports is not False,
            per_slot=self._per_slot,
        )
