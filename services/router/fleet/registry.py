"""The attached runtimes, the models that each serves, and when each was last heard from. Pure;
`now` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from stellwerk.router.v1 import fleet_service_pb2 as messages
from stellwerk.router.v1 import router_service_pb2 as router

READY = router.ServedModel.STATE_READY
LOADING = router.ServedModel.STATE_LOADING
FAILED = router.ServedModel.STATE_FAILED


@dataclass(slots=True)
class Member:
    """One attached runtime."""

    runtime: router.Runtime
    # When it last reported.
    heard: float
    # When it was told to serve each key that it has not reported yet.
    ordered: dict[str, float] = field(default_factory=dict)
    # When to try each key again that it could not load.
    retry_at: dict[str, float] = field(default_factory=dict)

    @property
    def instance(self) -> str:
        """The id of the runtime's process."""
        return self.runtime.instance

    @property
    def usable(self) -> bool:
        """True while it may be told to serve more models."""
        return not (self.runtime.stale or self.runtime.draining)

    def served(self, key: str) -> router.ServedModel | None:
        """Returns what it last reported about the key, None if it does not have it."""
        return next((model for model in self.runtime.models if model.key == key), None)


# Seconds after which a member that is silent about a key it was told to serve is told again.
ORDER_SECONDS = 10.0
# Seconds after which a member tries again to load a model that it could not load.
RETRY_SECONDS = 5.0


class FleetRegistry:
    """The members by instance, and the slots of those that answer each key."""

    def __init__(self, stale_seconds: float, gone_seconds: float) -> None:
        """Gives no new model to a member not heard from for `stale_seconds`, and takes it out after
        `gone_seconds`.
        """
        self._stale_seconds = stale_seconds
        self._gone_seconds = gone_seconds
        self.members: dict[str, Member] = {}
        # The calls, of any key, that the members which answer a key make at a time; 0 if none
        # answers it. Always the same object, because every call of a model reads it.
        self.slots: Counter[str] = Counter()

    def advertise(self, runtime: router.Runtime, now: float) -> list[str]:
        """Takes in what a runtime has. Returns the instances that it supersedes: earlier processes
        of the same name.
        """
        superseded = [
            member.instance
            for member in self.members.values()
            if member.runtime.name == runtime.name and member.instance != runtime.instance
        ]
        for instance in superseded:
            self.detach(instance)
        known = self.members.get(runtime.instance)
        copy = router.Runtime()
        copy.CopyFrom(runtime)
        if known is None:
            copy.attach_time.GetCurrentTime()
            self.members[runtime.instance] = Member(copy, now)
        else:
            copy.attach_time.CopyFrom(known.runtime.attach_time)
            known.runtime, known.heard = copy, now
        self._index()
        return superseded

    def report(self, instance: str, report: messages.Report, now: float) -> None:
        """Takes in what a runtime serves and does now."""
        member = self.members.get(instance)
        if member is None:
            return
        del member.runtime.models[:]
        member.runtime.models.extend(report.models)
        member.runtime.in_flight = report.in_flight
        member.runtime.draining = report.draining
        member.runtime.stale = False
        member.heard = now
        for model in report.models:
            member.ordered.pop(model.key, None)
            if model.state == FAILED:
                member.retry_at.setdefault(model.key, now + RETRY_SECONDS)
            else:
                member.retry_at.pop(model.key, None)
        self._index()

    def detach(self, instance: str) -> None:
        """Takes out a runtime that is gone."""
        if self.members.pop(instance, None) is not None:
            self._index()

    def expire(self, now: float) -> list[str]:
        """Marks silent members as stale; takes out and returns those silent for too long."""
        gone = [m.instance for m in self.members.values() if now - m.heard >= self._gone_seconds]
        changed = bool(gone)
        for instance in gone:
            del self.members[instance]
        for member in self.members.values():
            stale = now - member.heard >= self._stale_seconds
            changed = changed or stale != member.runtime.stale
            member.runtime.stale = stale
        if changed:
            self._index()
        return gone

    def _index(self) -> None:
        self.slots.clear()
        for member in self.members.values():
            if not member.usable:
                continue
            for key in {model.key for model in member.runtime.models if model.state == READY}:
                self.slots[key] += max(1, member.runtime.slots)

    def ready(self, key: str) -> bool:
        """Returns whether any member answers the key now."""
        return key in self.slots

    def known_keys(self) -> set[str]:
        """Returns every key that any member reports, in whatever state."""
        return {model.key for member in self.members.values() for model in member.runtime.models}

    def runtimes(self) -> Iterable[router.Runtime]:
        """Returns all runtimes by name."""
        return sorted(
            (member.runtime for member in self.members.values()), key=lambda runtime: runtime.name
        )
