"""The repository when things around it break: a database that is away, processes that were killed,
hostile input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.chassis.mongo import connect
from services.local.backing.mongod import Mongod
from services.repository.mongo import Database
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import errors
from tests.fakes.repository_server import (
    RepositoryServer,
    connect_as,
    held,
    pieces,
    repository,
    skops_bytes,
    until,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_faults", sweep_seconds=0.1) as running:
        yield running


@pytest.fixture(autouse=True)
async def _left_idle(server: RepositoryServer) -> AsyncIterator[None]:
    """What a test cancelled is gone before the next one counts."""
    yield
    await server.process_idle()


async def _leave_dead_stream(server: RepositoryServer, state: str = "streaming") -> None:
    """What a repository leaves behind that was killed in the middle of an upload."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    record = {
        "_id": f"dead-{state}",
        "model": "default/dead",
        "creator": "principals/x",
        "spec": b"",
        "version": 0,
    }
    await server.database.uploads.insert_one(
        {**record, "state": state, "file": f"file-{state}", "lease": past, "expires": past}
    )
    await server.database["fs.chunks"].insert_many(
        [{"files_id": f"file-{state}", "n": n, "data": bytes(1000)} for n in range(5)]
    )


async def test_the_sweeper_removes_what_a_killed_repository_left(server: RepositoryServer) -> None:
    ada = server.as_()
    kept = await ada.put("kept", skops_bytes(2 * MIB))
    open_upload = await ada.open("still-open")
    before = await server.counts()

    await _leave_dead_stream(server)
    await server.database.uploads.insert_one(
        {
            "_id": "lapsed",
            "state": "open",
            "file": "",
            "expires": datetime.now(UTC) - timedelta(seconds=1),
        }
    )
    await server.database["fs.chunks"].insert_one({"files_id": "nobodys", "n": 0, "data": b"x"})

    async def swept() -> bool:
        return await server.counts() == before

    await until(swept)
    assert await ada.fetch(kept.name) == skops_bytes(2 * MIB)
    assert (await ada.send(open_upload, skops_bytes(100))).version == 1


async def test_the_sweeper_leaves_a_living_stream_alone(server: RepositoryServer) -> None:
    ada, gate = server.as_(), asyncio.Event()
    upload = await ada.open("living")
    sending = asyncio.create_task(ada.stub.UploadArtifact(held(upload, 9 * MIB, gate)))

    async def written() -> bool:
        record = await server.database.uploads.find_one({"state": "streaming"})
        return bool(
            record
            and await server.database["fs.chunks"].count_documents({"files_id": record["file"]})
        )

    await until(written)
    swept = server.process.metrics.get_sample_value("stellwerk_repository_files_swept_total")
    await _leave_dead_stream(server, "committed")
    await server.database.uploads.delete_many({"_id": "dead-committed"})
    await until(
        lambda: (
            server.process.metrics.get_sample_value("stellwerk_repository_files_swept_total")
            == (swept or 0) + 1
        )
    )
    gate.set()

    version = (await sending).model_version
    assert await ada.fetch(version.name) == skops_bytes(9 * MIB)


async def test_a_stream_that_was_taken_for_dead_cannot_commit(server: RepositoryServer) -> None:
    ada, gate = server.as_(), asyncio.Event()
    upload = await ada.open("zombie")
    before = await server.counts()
    sending = asyncio.create_task(ada.stub.UploadArtifact(held(upload, 9 * MIB, gate)))

    async def written() -> bool:
        return bool(await server.database.uploads.count_documents({"state": "streaming"}))

    await until(written)
    past = datetime.now(UTC) - timedelta(seconds=1)
    await server.database.uploads.update_one({"state": "streaming"}, {"$set": {"lease": past}})

    async def taken() -> bool:
        return not await server.database.uploads.count_documents({"state": "streaming"})

    await until(taken)
    gate.set()

    with pytest.raises(errors.Conflict):
        await sending

    async def swept() -> bool:
        return await server.counts() == before | {"uploads": before["uploads"] - 1}

    await until(swept)


_DYING_REPOSITORY = """
import asyncio, sys
from tests.fakes.repository_server import repository
async def main():
    async with repository(sys.argv[1], sys.argv[2]) as server:
        print(server.address, server.as_().token, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_what_a_repository_killed_in_the_middle_of_uploads_left_is_swept_by_the_next(
    mongod: str,
) -> None:
    database = "repository_killed"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _DYING_REPOSITORY,
        mongod,
        database,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ".:generated:sdk"},
    )
    assert child.stdout is not None
    address, token = (await child.stdout.readline()).decode().split()
    async with connect_as(address, token) as ada, connect(mongod, "test") as client:
        whole = await ada.put("whole", skops_bytes(3 * MIB))
        uploads = [await ada.open("broken") for _ in range(3)]
        sending = [
            asyncio.create_task(ada.stub.UploadArtifact(held(upload, 9 * MIB)))
            for upload in uploads
        ]
        chunks, records = client[database]["fs.chunks"], client[database].uploads

        async def are_written(files: int) -> bool:
            return len(await chunks.distinct("files_id")) == files

        await until(lambda: are_written(4))
        child.kill()
        await child.wait()
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            assert isinstance(outcome, errors.Unavailable)
        past = datetime.now(UTC) - timedelta(seconds=1)
        await records.update_many(
            {"state": "streaming"}, {"$set": {"lease": past}}
        )  # as after 30 seconds

        async with repository(mongod, database) as server:
            await until(lambda: are_written(1))
            assert await server.as_().fetch(whole.name) == skops_bytes(3 * MIB)
            assert (
                await server.database.uploads.count_documents({"state": {"$ne": "committed"}}) == 0
            )


async def test_a_client_that_falls_silent_is_given_up(mongod: str) -> None:
    async with repository(mongod, "repository_silent", upload_idle_seconds=0.3) as server:
        ada = server.as_()
        before = await server.counts()
        upload = await ada.open("silent")

        with pytest.raises(errors.DeadlinePassed):
            await ada.stub.UploadArtifact(held(upload, 5 * MIB))

        assert await server.counts() == before


async def test_without_its_database_the_repository_starts_says_so_and_recovers(
    tmp_path: Path,
) -> None:
    mongod = Mongod(tmp_path)
    await asyncio.to_thread(mongod.start)
    late = RepositoryServer(mongod.url, "late")
    try:
        await asyncio.to_thread(mongod.stop)
        starting = asyncio.create_task(late.start())
        await until(lambda: hasattr(late, "process") and bool(late.process.bound_port))
        ada = late.as_()
        await until(
            lambda: any("database" in reason for reason in late.process.readiness.reasons())
        )
        with pytest.raises(errors.Unavailable):
            await ada.stub.GetModel(pb.GetModelRequest(name="buckets/default/models/m"))
        assert not starting.done()

        await asyncio.to_thread(mongod.start)
        await starting
        assert (await ada.put("m")).version == 1

        await asyncio.to_thread(mongod.stop)
        await until(lambda: bool(late.process.readiness.reasons()))
        with pytest.raises(errors.Unavailable):
            await ada.put("m")
        await asyncio.to_thread(mongod.start)
        await until(lambda: not late.process.readiness.reasons())
        assert (await ada.put("m")).version == 2
    finally:
        await late.stop()
        await asyncio.to_thread(mongod.stop)


HOSTILE = [
    "..",
    ".",
    "../../etc/passwd",
    "..%2f..%2fetc",
    "%2e%2e%2f",
    "%00",
    "a\x00b",
    "\x00",
    "a/b",
    "a//b",
    "/a",
    "a/",
    "a\\b",
    "C:\\x",
    "a..b",
    ".hidden",
    "-rf",
    "_a",
    "a_",
    "a.",
    "a b",
    " a",
    "a ",
    "a\nb",
    "a\r\nX: y",
    "a\tb",
    "ä",
    "模型",
    "a\u202eb",
    "\u0430dmin",
    "a\u0301",
    "🚂",
    "a" * 64,
    "a" * 100_000,
    "$where",
    "{$gt:0}",
    "a;drop",
    "a|b",
    "`id`",
    "$(id)",
    "a*",
    "a?b",
    "a#b",
    "a:b",
    "<a>",
    "'a'",
    "",
]


MODELS = "buckets/default/models"
NAMED = {
    "CreateBucket": lambda name: pb.CreateBucketRequest(bucket=pb.Bucket(name=f"buckets/{name}")),
    "ListModels": lambda name: pb.ListModelsRequest(parent=f"buckets/{name}"),
    "DeleteModel": lambda name: pb.DeleteModelRequest(name=f"buckets/{name}/models/m"),
    "CreateUpload": lambda name: pb.CreateUploadRequest(
        parent=f"{MODELS}/{name}", model_version=pb.ModelVersion(format="skops")
    ),
    "GetModel": lambda name: pb.GetModelRequest(name=f"{MODELS}/{name}"),
    "ListAliases": lambda name: pb.ListAliasesRequest(parent=f"{MODELS}/{name}"),
    "SetAlias": lambda name: pb.SetAliasRequest(
        alias=pb.Alias(name=f"{MODELS}/m/aliases/{name}", version=1)
    ),
    "ResolveModelVersion": lambda name: pb.ResolveModelVersionRequest(
        name=f"{MODELS}/m/aliases/{name}"
    ),
    "GetModelVersion": lambda name: pb.GetModelVersionRequest(name=f"{MODELS}/m/versions/{name}"),
    "DeleteModelVersion": lambda name: pb.DeleteModelVersionRequest(
        name=f"{MODELS}/m/versions/{name}"
    ),
    "UploadArtifact": lambda name: pieces(f"{MODELS}/m/uploads/{name}", b"x"),
}


@pytest.mark.parametrize("rpc", NAMED)
async def test_hostile_names_are_refused_and_change_nothing(
    server: RepositoryServer, rpc: str
) -> None:
    call = getattr(server.as_(("admin", "*")).stub, rpc)
    before = await server.counts()

    outcomes = await asyncio.gather(
        *(call(NAMED[rpc](name)) for name in HOSTILE), return_exceptions=True
    )

    for name, outcome in zip(HOSTILE, outcomes, strict=True):
        assert isinstance(outcome, errors.InvalidInput), (name, outcome)
    assert await server.counts() == before


async def test_names_like_those_of_the_database_stay_names(server: RepositoryServer) -> None:
    ada = server.as_()
    for label in ("$where", "a.$b"):
        with pytest.raises(errors.InvalidInput):
            await ada.open("m", labels={label: "x"})
    version = await ada.put(
        "valued", labels={"a.b": "$where"}, metadata={"k": "{$gt: 0}"}, description="$$ROOT"
    )
    found = await ada.stub.GetModelVersion(pb.GetModelVersionRequest(name=version.name))
    assert found.model_version == version


async def test_preparing_a_database_twice_changes_nothing(
    mongod: str, server: RepositoryServer
) -> None:
    client = connect(mongod, "test")
    before = await server.counts()

    await Database(client, "repository_faults").prepare()

    assert await server.counts() == before
    await client.close()
