"""A runtime process with everything real but its peers: gRPC, broker frames, model libraries,
disk.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.lifecycle.process import Process
from services.local.ports import free_port
from services.runtime.config import RuntimeSettings
from services.runtime.main import assemble
from soak import large_models
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.runtime.v1 import runtime_service_pb2 as runtime_pb2
from stellwerk.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc
from stellwerk.wire.tensors import from_numpy, to_numpy
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.process import Standalone, standalone
from tests.fakes.repository_source import FakeRepository
from tests.fakes.router_server import FakeRouterServer

READY = router_pb2.ServedModel.STATE_READY
FAILED = router_pb2.ServedModel.STATE_FAILED


@asynccontextmanager
async def peers(repository: FakeRepository, port: int = 0) -> AsyncIterator[FakeRouterServer]:
    server = FakeRouterServer(repository, port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def runtime(folder: Path, port: int, **settings: Any) -> AsyncIterator[Standalone]:
    address = f"127.0.0.1:{port}"
    chosen = RuntimeSettings(
        name="r1",
        router=address,
        repository=address,
        cache_dir=folder / "cache",
        labels="zone=west",
        slots=2,
        log_level="error",
        drain_seconds=10,
        **settings,
    )

    def build(process: Process) -> None:
        assemble(process, chosen, process.open_broker())

    async with standalone("runtime", build, chosen) as running:
        yield running


def iris(
    repository: FakeRepository, folder: Path
) -> tuple[repository_pb2.ModelVersion, Any, np.ndarray[Any, Any]]:
    pipeline, features, _ = models.iris_pipeline()
    signature = models.method(
        "predict", [models.spec("X", "FP64", -1, 4)], [models.spec("predict", "INT64", -1)]
    )
    path = models.save_skops(pipeline, folder / "iris.skops")
    return repository.add(models.version("skops", signature), path), pipeline, features


def item(name: str, array: np.ndarray[Any, Any]) -> work_pb2.WorkItem:
    return work_pb2.WorkItem(
        id=name, method="predict", inputs=[from_numpy("X", array)], timeout_ms=15_000
    )


async def test_it_attaches_with_what_it_has_serves_what_it_is_told_and_answers(
    tmp_path: Path,
) -> None:
    repository = FakeRepository()
    version, pipeline, features = iris(repository, tmp_path)
    async with peers(repository) as router, runtime(tmp_path, router.port) as process:
        await eventually(lambda: bool(router.advertisements), within=30)
        advertised = router.advertisements[0]
        assert advertised.name == "runtimes/r1"
        assert advertised.cpu_cores >= 1 and advertised.memory_bytes > 1 << 28
        assert advertised.slots == 2
        assert list(advertised.formats) == ["onnx", "skops", "torch_export", "torch_safetensors"]
        assert set(advertised.frameworks) >= {"scikit-learn", "onnxruntime", "torch"}
        assert dict(advertised.labels) == {"zone": "west"}
        assert router.metadata[0]["authorization"].startswith("Bearer ")

        key = router.serve(version)
        await eventually(lambda: router.states().get(key) == READY, within=30)
        replies = await router.ask(
            version, *(item(str(row), features[row : row + 1]) for row in range(20))
        )

        assert [int(to_numpy(reply.outputs[0])[0]) for reply in replies] == pipeline.predict(
            features[:20]
        ).tolist()
        assert {reply.runtime for reply in replies} == {"runtimes/r1"}
        async with process.channel() as channel:
            stub: Any = runtime_grpc.RuntimeServiceStub(channel)
            token = process.bearer(("viewer", "*"))
            described = await stub.DescribeRuntime(
                runtime_pb2.DescribeRuntimeRequest(), metadata=token
            )
            cached = await stub.ListCachedModels(
                runtime_pb2.ListCachedModelsRequest(), metadata=token
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.DescribeRuntime(runtime_pb2.DescribeRuntimeRequest())
        assert described.runtime.models[0].state == READY
        assert (cached.models[0].model_version, cached.models[0].calls) == (version.name, 20)
        assert cached.used_bytes == cached.models[0].memory_bytes > 0
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_model_that_cannot_be_loaded_is_reported_with_the_reason(tmp_path: Path) -> None:
    repository = FakeRepository()
    pickled = repository.add(
        models.version("pickle", name="buckets/b/models/p/versions/1"), b"\x80\x05."
    )
    wrong, _, _ = iris(repository, tmp_path)
    repository.artifacts[wrong.name] = b"x" * wrong.size_bytes
    async with peers(repository) as router, runtime(tmp_path, router.port):
        keys = [router.serve(version) for version in (pickled, wrong)]
        await eventually(
            lambda: [router.states().get(key) for key in keys] == [FAILED, FAILED], within=30
        )

        reasons = {model.key: model.error_reason for model in router.reports[-1].models}
        assert [reasons[key] for key in keys] == ["UNSAFE_FORMAT", "CORRUPT"]
        assert repository.downloads == [wrong.name]


async def test_a_router_that_restarts_learns_what_is_served_and_is_answered(tmp_path: Path) -> None:
    repository = FakeRepository()
    version, _, features = iris(repository, tmp_path)
    async with peers(repository) as first, runtime(tmp_path, first.port):
        key = first.serve(version)
        await eventually(lambda: first.states().get(key) == READY, within=30)
        await first.stop()
        async with peers(repository, first.port) as second:
            await eventually(lambda: second.states().get(key) == READY, within=10)
            assert second.advertisements[0].name == "runtimes/r1"
            queue = f"stellwerk.infer.{key}"
            await eventually(lambda: second.hub.inspect(queue, 0.0).consumers == 1, within=10)

            (reply,) = await second.ask(version, item("1", features[:1]))

            assert not reply.HasField("error")
            assert repository.downloads == [version.name]


async def test_a_runtime_that_is_told_to_stop_answers_what_it_has_and_takes_nothing_new(
    tmp_path: Path,
) -> None:
    repository = FakeRepository()
    version, _, features = iris(repository, tmp_path)
    async with peers(repository) as router:
        async with runtime(tmp_path, router.port, memory_bytes=1 << 30) as process:
            key = router.serve(version)
            await eventually(lambda: router.states().get(key) == READY, within=30)
            asked = asyncio.create_task(
                router.ask(version, *(item(f"{n}", features) for n in range(300)))
            )
            await eventually(lambda: any(answer.done() for answer in router.answers.values()))
            process.process.stop()

            replies = await asked

            assert all(not reply.HasField("error") for reply in replies)
            await eventually(lambda: router.reports[-1].draining)
        assert (await router.broker.inspect(f"stellwerk.infer.{key}")).consumers == 0


async def test_a_new_version_takes_over_from_the_old_one_without_a_failed_call(
    tmp_path: Path,
) -> None:
    repository = FakeRepository()
    old, _, features = iris(repository, tmp_path)
    forest = large_models.forest(tmp_path, "forest", 50 * large_models.MB)
    name = "buckets/default/models/forest/versions/1"
    new = repository.add(models.version(forest.format, *forest.signature, name=name), forest.path)
    async with peers(repository) as router, runtime(tmp_path, router.port):
        old_key = router.serve(old)
        await eventually(lambda: router.states().get(old_key) == READY, within=30)
        asked, answered = [old], {old.name: 0, new.name: 0}
        failed: list[str] = []

        async def calls(caller: int) -> None:
            for number in itertools.count():
                if not asked:
                    return
                version = asked[-1]
                (reply,) = await router.ask(version, item(f"{caller}.{number}", features[:1]))
                answered[version.name] += 1
                failed.extend([reply.error.message] if reply.HasField("error") else [])

        callers = [asyncio.create_task(calls(caller)) for caller in range(8)]
        await eventually(lambda: answered[old.name] > 50)
        before = answered[old.name]
        new_key = router.serve(new)
        await eventually(lambda: router.states().get(new_key) == READY, within=30)
        while_loading = answered[old.name] - before
        asked.append(new)
        router.stop_serving(old_key)
        await eventually(lambda: old_key not in router.states())
        # As a router does: what came too late for the old version's consumer has it served once
        # more.
        router.serve(old)
        await eventually(lambda: answered[new.name] > 50)
        asked.clear()
        await asyncio.wait_for(asyncio.gather(*callers), 20)

        assert failed == []
        assert while_loading > 10


async def test_a_version_whose_warm_up_fails_is_not_served(tmp_path: Path) -> None:
    repository = FakeRepository()
    version, _, features = iris(repository, tmp_path)
    version.serving.warmup.add(inputs=[from_numpy("X", features[:1])])
    version.serving.warmup.add(inputs=[from_numpy("X", features[:1, :3])])
    async with peers(repository) as router, runtime(tmp_path, router.port):
        key = router.serve(version)
        await eventually(lambda: router.states().get(key) == FAILED, within=30)

        (model,) = router.reports[-1].models
        assert model.error_reason == "MODEL_FAILED"
        assert "warm-up call 2 of 'predict' failed" in model.error


def environment(**settings: str) -> dict[str, str]:
    paths = os.pathsep.join(str(Path(part).resolve()) for part in (".", "generated", "sdk"))
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": paths,
        **settings,
    }


async def test_alone_in_the_world_it_lives_says_what_is_missing_and_stops_cleanly(
    tmp_path: Path,
) -> None:
    port = free_port()
    nowhere = f"127.0.0.1:{free_port()}"
    settings = environment(
        STELLWERK_LISTEN=f"127.0.0.1:{port}",
        STELLWERK_SERVICE_KEY="sws_runtime_" + "x" * 43,
        STELLWERK_CACHE_DIR=str(tmp_path),
        STELLWERK_CONTROLPLANE=nowhere,
        STELLWERK_ROUTER=nowhere,
        STELLWERK_REPOSITORY=nowhere,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.runtime", env=settings, stderr=subprocess.PIPE
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30
            )
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert lines[-1]["event"] == "stopped"


def test_wrong_settings_end_it_with_their_names() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.runtime"],
        env=environment(STELLWERK_SLOTS="many", STELLWERK_LABELS="=zone"),
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == os.EX_CONFIG
    assert "STELLWERK_SLOTS" in done.stderr and "STELLWERK_LABELS" in done.stderr
