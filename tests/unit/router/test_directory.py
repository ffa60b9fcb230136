"""What names mean: asked once, forgotten on news, and still known while the repository is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.chassis.broker.port import Message
from services.router.naming.directory import ModelDirectory
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.type.v1 import event_pb2
from stellwerk.wire.errors import ModelNotFound, ServiceError, Unavailable
from stellwerk.wire.names import ModelName

IRIS, WINE = ModelName("default", "iris"), ModelName("default", "wine")


class Repository:
    """A channel whose one RPC answers with the number of times it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: ServiceError | None = None
        # The version that every name means, if not one for each time it was asked.
        self.same: messages.ModelVersion | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        return self._resolve

    unary_stream = stream_unary = unary_unary

    async def _resolve(self, request: Any, **_: Any) -> messages.ResolveModelVersionResponse:
        self.asked += 1
        asked = self.asked
        await self.gate.wait()
        if self.error:
            raise self.error
        version = messages.ModelVersion()
        version.CopyFrom(self.same or messages.ModelVersion(version=asked))
        return messages.ResolveModelVersionResponse(model_version=version)


class News:
    """A delivery of an event about a resource."""

    redelivered, routing_key = False, "repository.version.created"

    def __init__(self, resource: str) -> None:
        self.message = Message(event_pb2.Event(resource=resource).SerializeToString())

    def ack(self) -> None: ...

    def nack(self, *, requeue: bool) -> None: ...


@pytest.fixture
def repository() -> Repository:
    return Repository()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_at_once_ask_once(repository: Repository) -> None:
    directory = ModelDirectory(repository, 60)

    targets = await asyncio.gather(*(directory.resolve(IRIS) for _ in range(50)))

    assert repository.asked == 1
    assert {target.version.version for target in targets} == {1}


async def test_news_of_a_model_makes_only_its_names_forgotten(repository: Repository) -> None:
    directory = ModelDirectory(repository, 60)
    aliased = ModelName("default", "iris", alias="production")
    for name in (IRIS, aliased, WINE):
        await directory.resolve(name)

    await directory.on_event(News("buckets/default/models/iris/versions/2"))

    assert [(await directory.resolve(name)).version.version for name in (IRIS, aliased, WINE)] == [
        4,
        5,
        3,
    ]


async def test_an_answer_older_than_the_news_is_not_kept(repository: Repository) -> None:
    directory = ModelDirectory(repository, 60)
    repository.gate.clear()
    asking = asyncio.create_task(directory.resolve(IRIS))
    await settled()

    await directory.on_event(News(IRIS.parent))
    repository.gate.set()
    await asking

    assert (await directory.resolve(IRIS)).version.version == 2


async def test_an_old_answer_serves_while_a_new_one_is_asked_for(repository: Repository) -> None:
    directory = ModelDirectory(repository, 0)
    await directory.resolve(IRIS)

    assert (await directory.resolve(IRIS)).version.version == 1
    await settled()
    assert (await directory.resolve(IRIS)).version.version == 2


async def test_a_repository_that_is_away_stops_nobody_whose_model_is_known(
    repository: Repository,
) -> None:
    directory = ModelDirectory(repository, 0)
    await directory.resolve(IRIS)
    repository.error = Unavailable("away")

    for _ in range(3):
        assert (await directory.resolve(IRIS)).version.version == 1
        await settled()
    with pytest.raises(Unavailable):
        await directory.resolve(WINE)


async def test_what_is_gone_is_forgotten(repository: Repository) -> None:
    directory = ModelDirectory(repository, 0)
    await directory.resolve(IRIS)
    repository.error = ModelNotFound("gone")

    await directory.resolve(IRIS)
    await settled()

    with pytest.raises(ModelNotFound):
        await directory.resolve(IRIS)


async def test_names_of_one_version_share_what_was_learned_of_it(repository: Repository) -> None:
    directory = ModelDirectory(repository, 60)
    repository.same = messages.ModelVersion(name=f"{IRIS.parent}/versions/1", version=1)
    aliased = ModelName("default", "iris", alias="production")

    first = await directory.resolve(IRIS)

    assert await directory.resolve(aliased) is first
    await directory.on_event(News(IRIS.parent))
    assert await directory.resolve(IRIS) is first


async def test_a_version_that_was_changed_is_learned_anew(repository: Repository) -> None:
    directory = ModelDirectory(repository, 60)
    repository.same = messages.ModelVersion(name=f"{IRIS.parent}/versions/1", version=1)
    first = await directory.resolve(IRIS)

    repository.same.serving.max_queue_size = 7
    await directory.on_event(News(IRIS.parent))

    assert (await directory.resolve(IRIS)).policy.max_queued == 7
    assert first.policy.max_queued == 0
