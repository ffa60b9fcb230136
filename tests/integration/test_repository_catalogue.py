"""Buckets, models, versions and aliases against a real mongod: what lists show, what races decide,
what is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import errors
from tests.fakes.repository_server import (
    Caller,
    RepositoryServer,
    pieces,
    repository,
    skops_bytes,
    until,
)

DEFAULT = "buckets/default"


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_catalogue") as running:
        yield running


@pytest.fixture(scope="module")
async def second(mongod: str, server: RepositoryServer) -> AsyncIterator[RepositoryServer]:
    """Another process's worth of repository on the same database."""
    other = RepositoryServer(mongod, "repository_catalogue")
    other.issuer = server.issuer
    await other.start()
    yield other
    await other.stop()


async def _bucket(caller: Caller, bucket: str) -> str:
    name = f"buckets/{bucket}"
    await caller.stub.CreateBucket(
        pb.CreateBucketRequest(bucket=pb.Bucket(name=name, description="for a test"))
    )
    return name


async def _set(caller: Caller, alias: str, version: int, etag: str) -> pb.Alias:
    request = pb.SetAliasRequest(alias=pb.Alias(name=alias, version=version, etag=etag))
    return (await caller.stub.SetAlias(request)).alias


async def _resolve(caller: Caller, name: str) -> int:
    answer = await caller.stub.ResolveModelVersion(pb.ResolveModelVersionRequest(name=name))
    return int(answer.model_version.version)


async def test_the_default_bucket_always_exists(server: RepositoryServer) -> None:
    ada = server.as_()

    assert (await ada.stub.GetBucket(pb.GetBucketRequest(name=DEFAULT))).bucket.name == DEFAULT
    await server.database.buckets.delete_one({"_id": "default"})
    assert (await ada.stub.GetBucket(pb.GetBucketRequest(name=DEFAULT))).bucket.name == DEFAULT
    with pytest.raises(errors.NotReady):
        await ada.stub.DeleteBucket(pb.DeleteBucketRequest(name=DEFAULT))


async def test_a_bucket_is_made_once_and_deleted_when_empty(server: RepositoryServer) -> None:
    ada = server.as_()
    bucket = await _bucket(ada, "short-lived")
    version = await ada.put(f"{bucket}/models/m")

    with pytest.raises(errors.AlreadyExists):
        await _bucket(ada, "short-lived")
    with pytest.raises(errors.NotReady):
        await ada.stub.DeleteBucket(pb.DeleteBucketRequest(name=bucket))
    await ada.stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=version.name))
    await ada.stub.DeleteBucket(pb.DeleteBucketRequest(name=bucket))
    with pytest.raises(errors.BucketNotFound):
        await ada.stub.GetBucket(pb.GetBucketRequest(name=bucket))
    with pytest.raises(errors.BucketNotFound):
        await ada.stub.DeleteBucket(pb.DeleteBucketRequest(name=bucket))


async def test_nothing_comes_to_be_in_a_bucket_that_does_not_exist(
    server: RepositoryServer,
) -> None:
    ada = server.as_()
    with pytest.raises(errors.BucketNotFound):
        await ada.put("buckets/nowhere/models/m")

    bucket = await _bucket(ada, "vanishing")
    upload = await ada.open(f"{bucket}/models/m")
    await ada.stub.DeleteBucket(pb.DeleteBucketRequest(name=bucket))
    before = await server.counts()
    with pytest.raises(errors.BucketNotFound):
        await ada.send(upload, skops_bytes(100))

    assert await server.counts() == before | {"uploads": before["uploads"] - 1}


async def test_a_listing_of_buckets_shows_what_the_caller_may_read(
    server: RepositoryServer,
) -> None:
    admin = server.as_()
    for bucket in ("red", "green", "green-house"):
        await _bucket(admin, bucket)

    async def seen(*grants: tuple[str, str]) -> list[str]:
        answer = await server.as_(*grants).stub.ListBuckets(pb.ListBucketsRequest(page_size=1000))
        return [bucket.name.removeprefix("buckets/") for bucket in answer.buckets]

    assert await seen(("viewer", "green"), ("caller", "red")) == ["green"]
    assert {"default", "green", "green-house", "red"} <= set(await seen(("viewer", "*")))
    assert await seen(("caller", "*")) == []


async def test_a_walk_of_pages_sees_everything_once(server: RepositoryServer) -> None:
    ada = server.as_()
    bucket = await _bucket(ada, "pages")
    await _bucket(ada, "pages-2")
    await ada.put("buckets/pages-2/models/not-here")
    names = [f"m{n:02}" for n in range(7)]
    await asyncio.gather(*(ada.put(f"{bucket}/models/{name}") for name in names))
    for n in range(5):
        await ada.put(f"{bucket}/models/m00", skops_bytes(100, b"%d" % n))

    models, token, calls = [], "", 0
    while calls == 0 or token:
        answer = await ada.stub.ListModels(
            pb.ListModelsRequest(parent=bucket, page_size=3, page_token=token)
        )
        models += [model.name.rpartition("/")[2] for model in answer.models]
        token, calls = answer.next_page_token, calls + 1
    assert (models, calls) == (names, 3)

    versions, token = [], ""
    while not versions or token:
        request = pb.ListModelVersionsRequest(
            parent=f"{bucket}/models/m00", page_size=2, page_token=token
        )
        page = await ada.stub.ListModelVersions(request)
        versions += [version.version for version in page.model_versions]
        token = page.next_page_token
    assert versions == [6, 5, 4, 3, 2, 1]


async def test_a_page_token_of_another_listing_is_refused(server: RepositoryServer) -> None:
    ada = server.as_()
    bucket = await _bucket(ada, "tokens")
    for name in ("a", "b"):
        await ada.put(f"{bucket}/models/{name}")
    token = (
        await ada.stub.ListModels(pb.ListModelsRequest(parent=bucket, page_size=1))
    ).next_page_token

    for request in (
        pb.ListModelsRequest(parent=DEFAULT, page_token=token),
        pb.ListModelsRequest(parent=bucket, filter='name = "a"', page_token=token),
        pb.ListModelsRequest(parent=bucket, page_token=token[:-2]),
        pb.ListModelsRequest(parent=bucket, page_token="\x00"),
        pb.ListModelsRequest(parent=bucket, page_size=-1),
    ):
        with pytest.raises(errors.InvalidInput):
            await ada.stub.ListModels(request)


FILTERS = {
    'name = "iris*"': ["iris", "iris.big"],
    'name = "iris"': ["iris"],
    'name="*"': ["iris", "iris.big", "zoo"],
    'format = "onnx"': ["zoo"],
    'labels.team = "blue"': ["iris", "iris.big"],
    'labels.team = "blue" AND labels.a.b/c = "x*"': ["iris"],
    'labels.a.b/c = "x.y"': [],
    'labels.a.b/c = "x$"': ["iris"],
    'labels.none = "*"': [],
    'name = ".*"': [],
    'name = "$where"': [],
    'name = "{\\"$gt\\": 0}"': [],
    'labels.team = "\\*"': ["zoo"],
}


async def test_filters_let_through_what_they_say(server: RepositoryServer) -> None:
    ada = server.as_()
    bucket = await _bucket(ada, "filters")
    await ada.put(f"{bucket}/models/iris", labels={"team": "blue", "a.b/c": "x$"})
    await ada.put(f"{bucket}/models/iris.big", labels={"team": "blue"})
    await ada.put(
        f"{bucket}/models/zoo", b"\x08\x07" + bytes(9), format="onnx", labels={"team": "*"}
    )

    for text, expected in FILTERS.items():
        answer = await ada.stub.ListModels(pb.ListModelsRequest(parent=bucket, filter=text))
        assert [model.name.rpartition("/")[2] for model in answer.models] == expected, text
    request = pb.ListModelVersionsRequest(
        parent=f"{bucket}/models/iris", filter='name = "1" AND labels.team = "b*"'
    )
    assert len((await ada.stub.ListModelVersions(request)).model_versions) == 1
    with pytest.raises(errors.InvalidInput):
        await ada.stub.ListModels(pb.ListModelsRequest(parent=bucket, filter='size > "3"'))


async def test_two_repositories_number_versions_together(
    server: RepositoryServer, second: RepositoryServer
) -> None:
    callers = [(server if n % 2 else second).as_() for n in range(10)]

    versions = await asyncio.gather(*(c.put("shared") for c in callers))

    assert sorted(version.version for version in versions) == list(range(1, 11))


async def test_a_deleted_model_is_gone_and_its_numbers_are_not_used_again(
    server: RepositoryServer,
) -> None:
    ada, model = server.as_(), f"{DEFAULT}/models/reborn"
    before = await server.counts()
    for _ in range(2):
        await ada.put("reborn")
    await _set(ada, f"{model}/aliases/default", 2, "")

    await ada.stub.DeleteModel(pb.DeleteModelRequest(name=model))

    after = await server.counts()
    assert {k: after[k] for k in ("fs.chunks", "fs.files", "versions", "models")} == {
        k: before[k] for k in ("fs.chunks", "fs.files", "versions", "models")
    }
    for call, request in (
        (ada.stub.GetModel, pb.GetModelRequest),
        (ada.stub.DeleteModel, pb.DeleteModelRequest),
    ):
        with pytest.raises(errors.ModelNotFound):
            await call(request(name=model))
    await until(lambda: any(e.kind == "repository.model.deleted" for e in server.broker.events))
    again = await ada.put("reborn")
    assert again.version == 3
    assert (await ada.stub.GetModel(pb.GetModelRequest(name=model))).model.aliases == {}


async def test_events_wait_for_the_broker_and_come_in_order(server: RepositoryServer) -> None:
    ada = server.as_()
    server.broker.away = True
    for _ in range(5):
        await ada.put("eventful")
    server.broker.away = False

    def told() -> list[str]:
        return [
            e.attributes["version"]
            for e in server.broker.events
            if "/models/eventful/" in e.resource
        ]

    await until(lambda: len(told()) >= 5)

    assert told() == ["1", "2", "3", "4", "5"]
    assert len({event.id for event in server.broker.events}) == len(server.broker.events)


async def test_a_viewer_changes_nothing(server: RepositoryServer) -> None:
    viewer, model = server.as_(("viewer", "*")), f"{DEFAULT}/models/m"
    before = await server.counts()

    for call, request in (
        (viewer.stub.CreateBucket, pb.CreateBucketRequest(bucket=pb.Bucket(name="buckets/x"))),
        (viewer.stub.DeleteBucket, pb.DeleteBucketRequest(name=DEFAULT)),
        (viewer.stub.CreateUpload, pb.CreateUploadRequest(parent=model)),
        (viewer.stub.DeleteModel, pb.DeleteModelRequest(name=model)),
        (viewer.stub.DeleteModelVersion, pb.DeleteModelVersionRequest(name=f"{model}/versions/1")),
        (viewer.stub.SetAlias, pb.SetAliasRequest(alias=pb.Alias(name=f"{model}/aliases/a"))),
        (viewer.stub.DeleteAlias, pb.DeleteAliasRequest(name=f"{model}/aliases/a")),
    ):
        with pytest.raises(errors.NotPermitted):
            await call(request)
    with pytest.raises(errors.NotPermitted):
        await viewer.stub.UploadArtifact(pieces(f"{model}/uploads/u", b"x"))

    assert await server.counts() == before
