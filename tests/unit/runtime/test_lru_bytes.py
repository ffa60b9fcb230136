"""What goes when room is needed: properties of the policy under every sequence of operations."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.runtime.models.cache import LruBytes, NoRoom

CAPACITY = 100
KEYS = st.integers(0, 7)


class PolicyMachine(RuleBasedStateMachine):
    """The policy beside a plain model: a list of [key, size, leases], least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.policy: LruBytes[int] = LruBytes(CAPACITY)
        self.model: list[list[int]] = []

    def _find(self, key: int) -> list[int] | None:
        return next((entry for entry in self.model if entry[0] == key), None)

    def _evicted(self, extra: int) -> list[int] | None:
        free = CAPACITY - sum(entry[1] for entry in self.model)
        gone = []
        for entry in self.model:
            if free >= extra:
                break
            if entry[2] == 0:
                gone.append(entry[0])
                free += entry[1]
        return gone if free >= extra else None

    def _forget(self, gone: list[int]) -> None:
        self.model = [entry for entry in self.model if entry[0] not in gone]

    @rule(key=KEYS, size=st.integers(0, 120))
    def add(self, key: int, size: int) -> None:
        if self._find(key) is not None:
            with pytest.raises(KeyError):
                self.policy.add(key, size)
            return
        expected = self._evicted(size)
        if expected is None:
            with pytest.raises(NoRoom):
                self.policy.add(key, size)
            return
        assert self.policy.add(key, size) == expected
        self._forget(expected)
        self.model.append([key, size, 1])

    @rule(key=KEYS, size=st.integers(0, 120))
    def resize(self, key: int, size: int) -> None:
        entry = self._find(key)
        if entry is None or not entry[2]:
            return
        expected = self._evicted(size - entry[1])
        if expected is None:
            with pytest.raises(NoRoom):
                self.policy.resize(key, size)
            return
        assert self.policy.resize(key, size) == expected
        self._forget(expected)
        entry[1] = size

    @rule(key=KEYS)
    def lease(self, key: int) -> None:
        entry = self._find(key)
        assert self.policy.lease(key) is (entry is not None)
        if entry is not None:
            entry[2] += 1
            self.model.remove(entry)
            self.model.append(entry)

    @rule(key=KEYS)
    def release(self, key: int) -> None:
        entry = self._find(key)
        if entry is None:
            return
        if entry[2] == 0:
            with pytest.raises(ValueError, match="not leased"):
                self.policy.release(key)
        else:
            self.policy.release(key)
            entry[2] -= 1

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        entry = self._find(key)
        if entry is not None:
            self.policy.remove(key)
            self.model.remove(entry)

    @invariant()
    def never_over_capacity_and_never_without_what_is_in_use(self) -> None:
        assert self.policy.used == sum(entry[1] for entry in self.model) <= CAPACITY
        assert self.policy.keys() == [entry[0] for entry in self.model]
        assert all(self.policy.leases(entry[0]) == entry[2] for entry in self.model)


TestPolicy = PolicyMachine.TestCase


def test_what_is_in_use_stays_even_if_nothing_else_fits() -> None:
    policy: LruBytes[str] = LruBytes(10)
    policy.add("used", 8)

    with pytest.raises(NoRoom):
        policy.add("new", 3)

    assert policy.keys() == ["used"]
