"""Artifacts in and out of the repository against a real mongod: whole or not at all, and right or
refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest

from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.repository.v1 import repository_service_pb2_grpc
from stellwerk.wire import errors
from tests.fakes.repository_server import (
    RepositoryServer,
    held,
    is_streaming,
    pieces,
    repository,
    skops_bytes,
    until,
)

MIB = 1024 * 1024


async def _holds(server: RepositoryServer, counts: dict[str, int]) -> bool:
    return await server.counts() == counts


@pytest.fixture(scope="module")
async def server(mongod: str) -> AsyncIterator[RepositoryServer]:
    async with repository(mongod, "repository_uploads") as running:
        yield running


@pytest.fixture(autouse=True)
async def _left_idle(server: RepositoryServer) -> AsyncIterator[None]:
    """What a test cancelled is gone before the next one counts."""
    yield
    await server.process_idle()


@pytest.mark.parametrize("size", [1, 7, 1024, 3 * MIB + 1])
async def test_pieces_of_any_size_make_the_same_artifact(
    server: RepositoryServer, size: int
) -> None:
    ada, data = server.as_(), skops_bytes(size * 3 if size > 1 else 64)
    upload = await ada.open("sliced", sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))

    answer = await ada.stub.UploadArtifact(pieces(upload, data, size))

    assert await ada.fetch(answer.model_version.name) == data


WRONG = {
    "another digest": ({"sha256": "0" * 64}, skops_bytes(2 * MIB), errors.InvalidInput),
    "fewer bytes than declared": (
        {"size_bytes": 3 * MIB},
        skops_bytes(2 * MIB),
        errors.InvalidInput,
    ),
    "more bytes than declared": ({"size_bytes": MIB}, skops_bytes(9 * MIB), errors.InvalidInput),
    "no bytes": ({}, b"", errors.InvalidInput),
    "a pickle that says skops": ({}, b"\x80\x04" + bytes(3 * MIB), errors.InvalidInput),
    "a pickle that says onnx": (
        {"format": "onnx"},
        b"\x80\x05" + bytes(3 * MIB),
        errors.InvalidInput,
    ),
    "a pickle of a format nobody knows": (
        {"format": "mine"},
        b"\x80\x02" + bytes(9),
        errors.InvalidInput,
    ),
    "an npy that says safetensors": (
        {"format": "torch_safetensors"},
        b"\x93NUMPY" + bytes(99),
        errors.InvalidInput,
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_artifact_leaves_nothing(server: RepositoryServer, case: str) -> None:
    spec, data, error = WRONG[case]
    ada = server.as_()
    before = await server.counts()
    upload = await ada.open("wrong", **spec)

    with pytest.raises(error):
        await ada.stub.UploadArtifact(pieces(upload, data or [data]))

    assert await server.counts() == before


async def test_an_artifact_over_the_limit_is_too_large(mongod: str) -> None:
    async with repository(mongod, "repository_small", max_artifact_bytes=6 * MIB) as small:
        ada = small.as_()
        before = await small.counts()

        with pytest.raises(errors.TooLarge):
            await ada.open("large", size_bytes=6 * MIB + 1)
        with pytest.raises(errors.TooLarge):
            await ada.put("large", skops_bytes(8 * MIB))

        assert await small.counts() == before


async def test_an_upload_that_is_cancelled_leaves_nothing(server: RepositoryServer) -> None:
    ada = server.as_()
    before = await server.counts()
    stub = repository_service_pb2_grpc.RepositoryServiceStub(server.bare())
    for size in range(1, 21):
        upload = await ada.open("broken")
        call = stub.UploadArtifact(metadata=[("authorization", f"Bearer {ada.token}")])
        async for message in pieces(upload, skops_bytes(size * MIB // 2)):
            await call.write(message)
        await until(lambda: is_streaming(server))
        call.cancel()
        await until(lambda: _holds(server, before))

    with pytest.raises(errors.ModelNotFound):
        await ada.stub.GetModel(pb.GetModelRequest(name="buckets/default/models/broken"))


async def test_uploads_cancelled_before_they_are_received_make_no_version(
    server: RepositoryServer,
) -> None:
    ada = server.as_()
    before = await server.counts()
    stub = repository_service_pb2_grpc.RepositoryServiceStub(server.bare())
    for _ in range(20):
        upload = await ada.open("unseen")
        call = stub.UploadArtifact(metadata=[("authorization", f"Bearer {ada.token}")])
        async for message in pieces(upload, skops_bytes(3 * MIB)):
            await call.write(message)
        call.cancel()
    await server.process_idle()

    # Those nobody began to receive wait for another attempt until they lapse.
    await server.database.uploads.delete_many({"state": "open"})
    assert await server.counts() == before


async def test_an_upload_past_its_deadline_leaves_nothing(server: RepositoryServer) -> None:
    ada = server.as_()
    before = await server.counts()
    upload = await ada.open("late")
    with pytest.raises(errors.DeadlinePassed):
        await ada.stub.UploadArtifact(held(upload, 5 * MIB), timeout=0.5)

    await until(lambda: _holds(server, before))


_DYING_CLIENT = """
import sys, grpc
from google.api import httpbody_pb2
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
address, token, upload = sys.argv[1:]
def pieces():
    for n in range(1000):
        if n == 6:
            print("sent", flush=True)
            sys.stdin.read()
        data = b"PK\\x03\\x04" + bytes(1 << 20)
        yield pb.UploadArtifactRequest(name=upload, artifact=httpbody_pb2.HttpBody(data=data))
stub = stubs.RepositoryServiceStub(grpc.insecure_channel(address))
stub.UploadArtifact(pieces(), metadata=[("authorization", "Bearer " + token)])
"""


async def test_a_client_that_is_killed_leaves_nothing(server: RepositoryServer) -> None:
    ada = server.as_()
    before = await server.counts()
    for _ in range(3):
        upload = await ada.open("killed")
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _DYING_CLIENT,
            server.address,
            ada.token,
            upload,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "generated"},
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == b"sent\n"
        # An upload that the server has not begun to receive may be tried again, and stays.
        await until(lambda: is_streaming(server))
        client.send_signal(signal.SIGKILL)
        await client.wait()
        await until(lambda: _holds(server, before))


async def test_a_finished_upload_repeated_answers_the_same_version(
    server: RepositoryServer,
) -> None:
    ada, data = server.as_(), skops_bytes(3 * MIB)
    upload = await ada.open("again")
    first = await ada.send(upload, data)
    before = await server.counts()

    again = await ada.send(upload, data)
    empty = await ada.send(upload, [b""])

    assert first == again == empty
    assert await server.counts() == before


async def test_of_two_streams_of_one_upload_one_wins(server: RepositoryServer) -> None:
    ada = server.as_()
    upload, gate = await ada.open("twice"), asyncio.Event()
    first = asyncio.create_task(ada.stub.UploadArtifact(held(upload, 2 * MIB, gate)))

    await until(lambda: is_streaming(server))
    with pytest.raises(errors.Conflict):
        await ada.send(upload, skops_bytes(MIB))
    gate.set()

    assert (await first).model_version.version == 1


async def test_twenty_uploads_at_once_become_versions_1_to_20(server: RepositoryServer) -> None:
    callers = [server.as_(subject=f"principals/p{n}") for n in range(20)]

    versions = await asyncio.gather(
        *(c.put("busy", skops_bytes(50_000, b"%d" % n)) for n, c in enumerate(callers))
    )

    assert sorted(v.version for v in versions) == list(range(1, 21))
    for n, version in enumerate(versions):
        assert await callers[n].fetch(version.name) == skops_bytes(50_000, b"%d" % n)
    await until(
        lambda: len([e for e in server.broker.events if "/models/busy/" in e.resource]) == 20
    )
    events = [
        e.attributes["version"] for e in server.broker.events if "/models/busy/" in e.resource
    ]
    assert events == [str(n) for n in range(1, 21)]


async def test_an_upload_that_fails_takes_no_number(server: RepositoryServer) -> None:
    ada = server.as_()
    await ada.put("gapless")

    with pytest.raises(errors.InvalidInput):
        await ada.put("gapless", sha256="0" * 64)

    assert (await ada.put("gapless")).version == 2


async def test_formats_that_run_code_need_their_permission(server: RepositoryServer) -> None:
    data = b"\x80\x04" + bytes(50)
    before = await server.counts()

    for format_id in ("pickle", "joblib", "cloudpickle"):
        with pytest.raises(errors.NotPermitted):
            await server.as_(("editor", "*")).put("code", data, format=format_id)
    with pytest.raises(errors.NotPermitted):
        await server.as_(("editor", "*"), ("publisher", "other")).put("code", data, format="pickle")
    assert await server.counts() == before

    assert (
        await server.as_(("publisher", "default")).put("code", data, format="pickle")
    ).version == 1


async def test_an_upload_belongs_to_who_opened_it(server: RepositoryServer) -> None:
    upload = await server.as_().open("owned")

    with pytest.raises(errors.UploadNotFound):
        await server.as_(subject="principals/bob").send(upload, skops_bytes(100))


async def test_memory_stays_constant_for_300_mb(server: RepositoryServer) -> None:
    ada, block = server.as_(), os.urandom(MIB)
    process, highest = psutil.Process(), 0
    await ada.put("warm", skops_bytes(20 * MIB))
    before = process.memory_info().rss

    def blocks() -> object:
        nonlocal highest
        for n in range(300):
            highest = max(highest, process.memory_info().rss)
            yield skops_bytes(MIB) if n == 0 else block

    version = await ada.send(await ada.open("huge"), blocks())
    size = 0
    async for part in ada.stub.DownloadArtifact(pb.DownloadArtifactRequest(name=version.name)):
        size += len(part.artifact.data)
        highest = max(highest, process.memory_info().rss)

    assert size == 300 * MIB
    assert highest - before < 60 * MIB  # client and server together
    await ada.stub.DeleteModel(pb.DeleteModelRequest(name="buckets/default/models/huge"))


async def test_what_happens_is_counted(mongod: str) -> None:
    async with repository(mongod, "repository_counted") as server:
        ada = server.as_()
        version = await ada.put("counted", skops_bytes(3 * MIB))
        await ada.fetch(version.name)
        with pytest.raises(errors.InvalidInput):
            await ada.put("counted", sha256="0" * 64)

        def value(name: str) -> float | None:
            return server.process.metrics.get_sample_value(f"stellwerk_repository_{name}")

        counted = [
            value(f"{name}_total")
            for name in ("bytes_in", "bytes_out", "versions_committed", "uploads_aborted")
        ]
        assert counted == [3 * MIB + 100, 3 * MIB, 1, 1]
        assert value("transfers") == 0
