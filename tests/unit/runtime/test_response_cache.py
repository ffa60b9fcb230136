"""Answers kept for equal calls: a bound in bytes that holds, least recently used first, and keys
without doubles.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.runtime.replies.response_cache import _OVERHEAD, Outputs, ResponseCache, cache_key
from stellwerk.type.v1 import tensor_pb2

VERSIONS = ["a", "b", "c"]
ROOM = 3 * _OVERHEAD


def key(version: str, number: int) -> bytes:
    return cache_key(
        version,
        "predict",
        (),
        [tensor_pb2.Tensor(name="X", datatype="INT8", shape=[1], data=bytes([number]))],
    )


def answer(number: int) -> Outputs:
    return (tensor_pb2.Tensor(name="y", datatype="INT8", shape=[1], data=bytes([number])),)


class CacheMachine(RuleBasedStateMachine):
    """The cache beside a plain list of [version, number, size], least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = ResponseCache(ROOM)
        self.model: list[tuple[str, int, int]] = []

    @rule(
        version=st.sampled_from(VERSIONS),
        number=st.integers(0, 4),
        size=st.integers(0, 2 * _OVERHEAD + 1),
    )
    def put(self, version: str, number: int, size: int) -> None:
        self.cache.put(key(version, number), answer(number), size)
        self.model = [entry for entry in self.model if entry[:2] != (version, number)]
        if size + _OVERHEAD <= ROOM:
            self.model.append((version, number, size + _OVERHEAD))
        while sum(entry[2] for entry in self.model) > ROOM:
            self.model.pop(0)

    @rule(version=st.sampled_from(VERSIONS), number=st.integers(0, 4))
    def get(self, version: str, number: int) -> None:
        kept = [entry for entry in self.model if entry[:2] == (version, number)]
        assert self.cache.get(key(version, number)) == (answer(number) if kept else None)
        self.model = [entry for entry in self.model if entry not in kept] + kept

    @rule(version=st.sampled_from(VERSIONS))
    def discard(self, version: str) -> None:
        self.cache.discard(version)
        self.model = [entry for entry in self.model if entry[0] != version]

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.cache.used == sum(entry[2] for entry in self.model) <= ROOM
        assert len(self.cache) == len(self.model)


TestCache = CacheMachine.TestCase


def test_a_cache_without_room_keeps_nothing() -> None:
    cache = ResponseCache(0)

    cache.put(key("a", 1), answer(1), 0)

    assert cache.get(key("a", 1)) is None


NAMES = st.text(max_size=4)
TENSORS = st.lists(
    st.builds(
        lambda name, datatype, shape, data: tensor_pb2.Tensor(
            name=name, datatype=datatype, shape=shape, data=data
        ),
        NAMES,
        st.sampled_from(["INT8", "UINT8", "BYTES", ""]),
        st.lists(st.integers(-1, 3), max_size=3),
        st.binary(max_size=6),
    ),
    max_size=3,
)
CALLS = st.tuples(NAMES, NAMES, st.lists(NAMES, max_size=3), TENSORS)


@given(CALLS, CALLS)
def test_keys_are_equal_for_equal_calls_and_for_no_others(one: Any, other: Any) -> None:
    assert (cache_key(*one) == cache_key(*other)) is (one == other)
    assert cache_key(*one) == cache_key(*one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "predict", ["x", "y"], []), ("a", "predict", ["xy"], [])),
        (("a", "predict", ["x"], []), ("a", "predictx", [], [])),
        (
            ("a", "p", [], [tensor_pb2.Tensor(name="ab")]),
            ("a", "p", [], [tensor_pb2.Tensor(name="a", datatype="b")]),
        ),
        (
            ("a", "p", [], [tensor_pb2.Tensor(shape=[2, 3], data=b"123456")]),
            ("a", "p", [], [tensor_pb2.Tensor(shape=[3, 2], data=b"123456")]),
        ),
        (
            ("a", "p", [], [tensor_pb2.Tensor(name="x"), tensor_pb2.Tensor(name="y")]),
            ("a", "p", [], [tensor_pb2.Tensor(name="y"), tensor_pb2.Tensor(name="x")]),
        ),
    ],
)
def test_what_only_looks_alike_has_other_keys(one: Any, other: Any) -> None:
    assert cache_key(*one) != cache_key(*other)
