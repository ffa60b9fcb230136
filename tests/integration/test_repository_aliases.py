"""Aliases over gRPC, with a real MongoDB: moved by compare-and-set, followed, never dangling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import errors
from tests.fakes.repository_server import (
    Caller,
    RepositoryServer,
    repository,
    skops_bytes,
    until,
)

DEFAULT = "buckets/default"


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_aliases") as running:
        yield running


@pytest.fixture(scope="module")
async def second(mongod: str, server: RepositoryServer) -> AsyncIterator[RepositoryServer]:
    """Another process's worth of repository on the same database."""
    other = RepositoryServer(mongod, "repository_aliases")
    other.issuer = server.issuer
    await other.start()
    yield other
    await other.stop()


async def _set(caller: Caller, alias: str, version: int, etag: str) -> pb.Alias:
    request = pb.SetAliasRequest(alias=pb.Alias(name=alias, version=version, etag=etag))
    return (await caller.stub.SetAlias(request)).alias


async def _resolve(caller: Caller, name: str) -> int:
    answer = await caller.stub.ResolveModelVersion(pb.ResolveModelVersionRequest(name=name))
    return int(answer.model_version.version)


async def test_an_alias_moves_only_for_who_has_read_it(server: RepositoryServer) -> None:
    ada = server.as_()
    await ada.put("aliased")
    await ada.put("aliased", skops_bytes(200))
    name = f"{DEFAULT}/models/aliased/aliases/production"

    first = await _set(ada, name, 1, "")
    with pytest.raises(errors.Conflict):
        await _set(ada, name, 2, "")
    moved = await _set(ada, name, 2, first.etag)
    with pytest.raises(errors.Conflict):
        await _set(ada, name, 1, first.etag)
    with pytest.raises(errors.VersionNotFound):
        await _set(ada, name, 3, moved.etag)
    with pytest.raises(errors.Conflict):
        await _set(ada, f"{DEFAULT}/models/aliased/aliases/new", 1, "stale")
    with pytest.raises(errors.ModelNotFound):
        await _set(ada, f"{DEFAULT}/models/nobody/aliases/production", 1, "*")

    assert (await ada.stub.GetAlias(pb.GetAliasRequest(name=name))).alias == moved
    assert (moved.version, moved.updater) == (2, "principals/ada")
    forced = await _set(ada, name, 1, "*")
    assert forced.etag not in (first.etag, moved.etag)
    with pytest.raises(errors.Conflict):
        await ada.stub.DeleteAlias(pb.DeleteAliasRequest(name=name, etag=moved.etag))
    await ada.stub.DeleteAlias(pb.DeleteAliasRequest(name=name, etag=forced.etag))
    with pytest.raises(errors.AliasNotFound):
        await ada.stub.DeleteAlias(pb.DeleteAliasRequest(name=name))

    def told() -> list[tuple[str, str]]:
        events = [event for event in server.broker.events if event.resource == name]
        return [(event.attributes["previous"], event.attributes["version"]) for event in events]

    await until(lambda: len(told()) >= 4)
    assert told() == [("0", "1"), ("1", "2"), ("2", "1"), ("1", "0")]


@pytest.mark.parametrize("etag", ["none", "read"])
async def test_of_twenty_who_move_an_alias_at_once_one_wins(
    server: RepositoryServer, second: RepositoryServer, etag: str
) -> None:
    callers = [(server if n % 2 else second).as_() for n in range(20)]
    model = f"raced-{etag}"
    await callers[0].put(model)
    name = f"{DEFAULT}/models/{model}/aliases/production"
    given = (await _set(callers[0], name, 1, "")).etag if etag == "read" else ""

    results = await asyncio.gather(
        *(_set(c, name, 1, given) for c in callers), return_exceptions=True
    )

    winners = [result for result in results if isinstance(result, pb.Alias)]
    losers = [result for result in results if isinstance(result, errors.Conflict)]
    assert (len(winners), len(losers)) == (1, 19)
    assert (await callers[0].stub.GetAlias(pb.GetAliasRequest(name=name))).alias == winners[0]


async def test_no_alias_is_left_dangling_by_a_deletion_at_the_same_moment(
    server: RepositoryServer, second: RepositoryServer
) -> None:
    ada, bob = server.as_(), second.as_()
    await ada.put("dangling")
    for n in range(15):
        version = await ada.put("dangling")
        alias = f"{DEFAULT}/models/dangling/aliases/a{n}"
        await asyncio.gather(
            _set(bob, alias, version.version, "*"),
            ada.stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=version.name)),
            return_exceptions=True,
        )

    kept = (
        await ada.stub.ListAliases(pb.ListAliasesRequest(parent=f"{DEFAULT}/models/dangling"))
    ).aliases
    answer = await ada.stub.ListModelVersions(
        pb.ListModelVersionsRequest(parent=f"{DEFAULT}/models/dangling")
    )
    versions = {version.version for version in answer.model_versions}
    assert {alias.version for alias in kept} <= versions
    assert len(kept) + 1 == len(versions)


async def test_a_name_resolves_to_what_it_means_now(server: RepositoryServer) -> None:
    ada, model = server.as_(), f"{DEFAULT}/models/resolved"
    for n in range(3):
        await ada.put("resolved", skops_bytes(100 + n))

    assert await _resolve(ada, model) == 3
    await _set(ada, f"{model}/aliases/default", 2, "")
    await _set(ada, f"{model}/aliases/canary", 1, "")
    assert [await _resolve(ada, model + end) for end in ("", "/aliases/canary", "/versions/3")] == [
        2,
        1,
        3,
    ]
    with pytest.raises(errors.AliasNotFound):
        await _resolve(ada, f"{model}/aliases/none")
    with pytest.raises(errors.VersionNotFound):
        await _resolve(ada, f"{model}/versions/4")
    with pytest.raises(errors.ModelNotFound):
        await _resolve(ada, f"{DEFAULT}/models/none")


async def test_a_version_is_deleted_only_when_no_alias_points_to_it(
    server: RepositoryServer,
) -> None:
    ada, model = server.as_(), f"{DEFAULT}/models/pointed"
    for n in range(3):
        await ada.put("pointed", skops_bytes(100), labels={"n": str(n)})
    await _set(ada, f"{model}/aliases/default", 3, "")
    delete = ada.stub.DeleteModelVersion

    with pytest.raises(errors.NotReady):
        await delete(pb.DeleteModelVersionRequest(name=f"{model}/versions/3"))
    await ada.stub.DeleteAlias(pb.DeleteAliasRequest(name=f"{model}/aliases/default"))
    await delete(pb.DeleteModelVersionRequest(name=f"{model}/versions/3"))

    found = (await ada.stub.GetModel(pb.GetModelRequest(name=model))).model
    assert (found.latest_version, dict(found.labels)) == (2, {"n": "1"})
    with pytest.raises(errors.VersionNotFound):
        await delete(pb.DeleteModelVersionRequest(name=f"{model}/versions/3"))
    assert (await ada.put("pointed")).version == 4
