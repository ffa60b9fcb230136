"""Where the contract is held: at every broker there is, or at those that a network lies before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.brokers import AtHub, AtRabbit, AtRouter, Place


async def _place(name: str, request: pytest.FixtureRequest) -> Place:
    if name == "amqp":
        return AtRabbit(request.getfixturevalue("rabbitmq_server"))
    if name == "hub":
        return AtHub()
    router = AtRouter()
    await router.come_back()
    return router


@pytest.fixture(params=["amqp", "pull", "hub"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Any broker."""
    found = await _place(request.param, request)
    yield found
    await found.close()


@pytest.fixture(params=["amqp", "pull"])
async def remote(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """A broker that can be lost: AtRabbit or AtRouter."""
    found = await _place(request.param, request)
    yield found
    await found.close()
