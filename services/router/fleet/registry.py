"""The runtimes that are attached, what they serve, and how long ago each was heard of. Values in,
values out; `now` is an argument, in seconds of any monotonic clock."""

from __future__ import annotations

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
    heard: float
    # Keys it was told to serve and has not reported yet, with the time it was told.
    ordered: dict[str, float] = field(default_factory=dict)
    # Failures already taken note of, by key: when to try again.
    retry_at: dict[str, float] = field(default_factory=dict)

    @property
    def instance(self) -> str:
        return self.runtime.instance

    @property
    def usable(self) -> bool:
        """It may be given new work."""
        return not (self.runtime.stale or self.runtime.draining)

    def served(self, key: str) -> router.ServedModel | None:
        """What it last reported about the key."""
        return next((model for model in self.runtime.models if model.key == key), None)


# Told to serve, but silent about it for this long: told again.
ORDER_SECONDS = 10.0
# A model that could not be loaded is tried again after this long.
RETRY_SECONDS = 5.0


class Fleet:
    """All members, and the index of who answers which key."""

    def __init__(self, stale_seconds: float, gone_seconds: float) -> None:
        self._stale_seconds, self._gone_seconds = stale_seconds, gone_seconds
        self.members: dict[str, Member] = {}
        self._ready: dict[str, set[str]] = {}

    def advertise(self, runtime: router.Runtime, now: float) -> list[str]:
        """A runtime says what it has. Returns the instances it supersedes: earlier processes of the
        same name.
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
        """A runtime says what it does now."""
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
        """A runtime is gone."""
        if self.members.pop(instance, None) is not None:
            self._index()

    def expire(self, now: float) -> list[str]:
        """Marks the silent as stale; takes out and returns those silent for too long."""
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
        self._ready = {}
        for member in self.members.values():
            if member.usable:
                for model in member.runtime.models:
                    if model.state == READY:
                        self._ready.setdefault(model.key, set()).add(member.instance)

    def ready(self, key: str) -> bool:
        """Whether anyone answers the key now."""
        return key in self._ready

    def slots(self, key: str) -> int:
        """Calls that those who answer the key make at a time, of this key or another."""
        return sum(
            max(1, self.members[instance].runtime.slots) for instance in self._ready.get(key, ())
        )

    def known_keys(self) -> set[str]:
        """Every key that any runtime reports, with its state aside."""
        return {model.key for member in self.members.values() for model in member.runtime.models}

    def runtimes(self) -> Iterable[router.Runtime]:
        """All runtimes by name."""
        return sorted(
            (member.runtime for member in self.members.values()), key=lambda runtime: runtime.name
        )
