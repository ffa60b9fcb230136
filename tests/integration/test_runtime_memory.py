"""A runtime process gives the memory of its models back: the short form of `make soak`."""

from __future__ import annotations

import pytest

from soak.large_models import MB
from soak.model_memory import evictions, loads_and_unloads

# The kinds that grew by 250 % and 60 % of the start, and kept a second copy, before anything was
# done about it.
KINDS = ["skops-forest", "torch-export", "onnx"]
ROUNDS = 4
SIZE = 100 * MB


@pytest.mark.parametrize("kind", KINDS)
async def test_memory_comes_back_when_a_model_is_unloaded(kind: str) -> None:
    memory = await loads_and_unloads(kind, ROUNDS, SIZE)

    assert memory.growth < 0.15
    assert max(memory.loaded) - memory.baseline < 1.3 * SIZE


async def test_an_evicted_models_memory_is_there_for_the_next() -> None:
    memory = await evictions("skops-forest", ROUNDS, SIZE)

    assert min(memory.loaded) - memory.baseline > 0.9 * SIZE
    assert max(memory.loaded) - memory.baseline < 1.3 * SIZE
