"""A runtime gives the memory of its models back: the short form of `make soak`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from soak.large_models import MB
from soak.model_memory import Runtime, evictions, loads_and_unloads, runtime

# The kinds that grew by 250 % and 60 % of the start, and kept a second copy, before anything was
# done about it.
KINDS = ["skops-forest", "torch-export", "onnx"]
ROUNDS = 3
SIZE = 60 * MB


@pytest.fixture(scope="module")
def roomy() -> Iterator[Runtime]:
    """A runtime with memory for all models."""
    with runtime() as started:
        yield started


@pytest.mark.parametrize("kind", KINDS)
def test_memory_comes_back_when_a_model_is_unloaded(roomy: Runtime, kind: str) -> None:
    memory = loads_and_unloads(roomy, kind, ROUNDS, SIZE)

    assert memory.growth < 0.15
    assert max(memory.loaded) - memory.baseline < 1.3 * SIZE


def test_an_evicted_models_memory_is_there_for_the_next() -> None:
    with runtime(memory_bytes=SIZE * 3 // 2) as narrow:
        memory = evictions(narrow, "skops-forest", ROUNDS, SIZE)

    assert min(memory.loaded) - memory.baseline > 0.9 * SIZE
    assert max(memory.loaded) - memory.baseline < 1.3 * SIZE
