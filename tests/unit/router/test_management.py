"""The protocol's extensions as the router serves them, behind its guard: who sees what, who may do
what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.chassis.lifecycle.process import Process
from services.router.calls.statistics import Statistics
from services.router.fleet.reconciler import Outgoing, Reconciler
from services.router.fleet.registry import READY, FleetRegistry
from services.router.naming.directory import ModelDirectory
from services.router.open_inference.log_settings import LogSettings
from services.router.open_inference.management import EXTENSIONS, ManagementServicer
from stellwerk.inference.v2 import grpc_service_pb2 as messages
from stellwerk.inference.v2 import grpc_service_pb2_grpc as stubs
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import fleet_service_pb2 as fleet_messages
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.wire.errors import ModelNotFound
from tests.fakes.eventually import eventually
from tests.fakes.process import Standalone, standalone

ADMIN = ("admin", "*")
TEAM = ("editor", "team")


def version(name: str) -> str:
    bucket, _, model = name.rpartition(":")
    return f"buckets/{bucket or 'default'}/models/{model}/versions/2"


class Repository:
    """A channel to a repository that has the models iris, team:wine and other:beer, each in version
    2.
    """

    models = ("iris", "other:beer", "team:wine")

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        return getattr(self, "_" + method.rpartition("/")[2], None)

    unary_stream = stream_unary = unary_unary

    async def _ListBuckets(self, request: Any, timeout: float) -> repository.ListBucketsResponse:
        return repository.ListBucketsResponse(
            buckets=[
                repository.Bucket(name=f"buckets/{bucket}")
                for bucket in ("default", "other", "team")
            ]
        )

    async def _ListModels(self, request: Any, timeout: float) -> repository.ListModelsResponse:
        names = [version(name).removesuffix("/versions/2") for name in self.models]
        found = [name for name in names if name.startswith(request.parent + "/")]
        return repository.ListModelsResponse(
            models=[repository.Model(name=n, latest_version=2) for n in found]
        )

    async def _ResolveModelVersion(
        self, request: Any, timeout: float
    ) -> repository.ResolveModelVersionResponse:
        for name in map(version, self.models):
            if request.name in (name, name.removesuffix("/versions/2")):
                found = repository.ModelVersion(name=name, version=2, format="skops")
                return repository.ResolveModelVersionResponse(model_version=found)
        raise ModelNotFound(f"there is no {request.name}", name=request.name)


class Waiting:
    """Nobody waits for an answer."""

    def count(self, _: str) -> int:
        return 0


class Whole(ManagementServicer, stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The extensions, and nothing of the core."""


class Router:
    """The servicer, a process around it, and one runtime that does what it is told at once."""

    process: Standalone
    stub: Any

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.reconciler = Reconciler(FleetRegistry(80, 300), Waiting(), 1800.0, lambda _: None)  # type: ignore[arg-type]
        self.orders: Outgoing = asyncio.Queue()
        self.served: dict[str, str] = {}
        runtime = router.Runtime(name="runtimes/a", instance="a", formats=["skops"], slots=1)
        self.reconciler.registry.advertise(runtime, time.monotonic())
        self.reconciler.attach("a", self.orders)

    def build(self, process: Process) -> None:
        servicer = Whole(
            ModelDirectory(Repository(), 30.0),
            self.reconciler,
            self.statistics,
            process.tracing,
            LogSettings(process.log_levels, "json"),
        )
        protocol = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        process.serve(protocol, stubs.add_GRPCInferenceServiceServicer_to_server, servicer)

    async def obey(self) -> None:
        while order := await self.orders.get():
            if order.HasField("serve"):
                self.served[order.serve.key] = order.serve.model_version
            else:
                self.served.pop(order.stop_serving.key, None)
            models = [
                router.ServedModel(key=k, model_version=v, state=READY, memory_bytes=7)
                for k, v in self.served.items()
            ]
            self.reconciler.registry.report(
                "a", fleet_messages.Report(models=models), time.monotonic()
            )
            self.reconciler.reconcile()

    async def call(self, rpc: str, *grants: tuple[str, str], **fields: Any) -> Any:
        request = getattr(messages, rpc + "Request")(**fields)
        return await getattr(self.stub, rpc)(
            request, metadata=self.process.bearer(*(grants or (ADMIN,))), timeout=10
        )

    async def refused(self, rpc: str, *grants: tuple[str, str], **fields: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(rpc, *grants, **fields)
        return caught.value.code()

    async def index(self, *grants: tuple[str, str], **fields: Any) -> dict[str, str]:
        found = await self.call("RepositoryIndex", *grants, **fields)
        return {model.name: model.state for model in found.models}


@pytest.fixture
async def served() -> AsyncIterator[Router]:
    fixture = Router()
    async with standalone("router", fixture.build) as process, process.channel() as channel:
        fixture.process, fixture.stub = process, stubs.GRPCInferenceServiceStub(channel)
        runtime = asyncio.create_task(fixture.obey())
        yield fixture
        runtime.cancel()


async def test_the_index_holds_what_its_reader_may_see(served: Router) -> None:
    assert await served.index() == {"iris": "", "other:beer": "", "team:wine": ""}
    assert await served.index(TEAM) == {"team:wine": ""}
    assert await served.index(repository_name="other") == {"other:beer": ""}
    assert await served.index(ready=True) == {}
    assert (
        await served.refused("RepositoryIndex", TEAM, repository_name="other")
        is grpc.StatusCode.PERMISSION_DENIED
    )
    assert (
        await served.refused("RepositoryIndex", repository_name="../x")
        is grpc.StatusCode.INVALID_ARGUMENT
    )


async def test_a_model_is_loaded_shown_and_let_go(served: Router) -> None:
    await served.call("RepositoryModelLoad", TEAM, model_name="team:wine", repository_name="team")
    assert await served.index(ready=True) == {"team:wine": "READY"}

    await served.call("RepositoryModelUnload", TEAM, model_name="team:wine")

    assert await served.index(ready=True) == {}
    assert served.served == {}


async def test_both_are_changes_in_the_ledger(served: Router) -> None:
    await served.call("RepositoryModelLoad", model_name="iris")
    await served.call("RepositoryModelUnload", model_name="iris")

    def outcomes() -> set[tuple[str, str, str]]:
        return {
            (r.method.rpartition("/")[2], r.resource, r.outcome)
            for r in served.process.ledger.records
        }

    resource = "buckets/default/models/iris"
    expected = {("RepositoryModelLoad", resource, "OK"), ("RepositoryModelUnload", resource, "OK")}
    await eventually(lambda: expected <= outcomes())


@pytest.mark.parametrize("rpc", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_a_repository_name_does_not_lead_around_the_permission(
    served: Router, rpc: str
) -> None:
    default = ("editor", "default")

    assert (
        await served.refused(rpc, TEAM, model_name="other:beer")
        is grpc.StatusCode.PERMISSION_DENIED
    )
    found = await served.refused(rpc, default, model_name="iris", repository_name="other")
    assert found is grpc.StatusCode.INVALID_ARGUMENT
    assert served.served == {}


@pytest.mark.parametrize(
    ("rpc", "parameter", "code"),
    [
        ("RepositoryModelLoad", "config", grpc.StatusCode.UNIMPLEMENTED),
        ("RepositoryModelLoad", "file:1/model.onnx", grpc.StatusCode.UNIMPLEMENTED),
        ("RepositoryModelLoad", "nonsense", grpc.StatusCode.INVALID_ARGUMENT),
        ("RepositoryModelUnload", "nonsense", grpc.StatusCode.INVALID_ARGUMENT),
        ("RepositoryModelUnload", "unload_dependents", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_parameters_that_are_not_taken_are_refused(
    served: Router, rpc: str, parameter: str, code: grpc.StatusCode
) -> None:
    parameters = {parameter: messages.ModelRepositoryParameter(string_param="{}")}

    assert await served.refused(rpc, model_name="iris", parameters=parameters) is code


@pytest.mark.parametrize(
    ("rpc", "field"),
    [
        ("RepositoryModelLoad", "model_name"),
        ("RepositoryModelUnload", "model_name"),
        ("ModelConfig", "name"),
        ("ModelStatistics", "name"),
        ("TraceSetting", "model_name"),
    ],
)
async def test_unknown_models_are_not_found(served: Router, rpc: str, field: str) -> None:
    assert await served.refused(rpc, **{field: "nobody"}) is grpc.StatusCode.NOT_FOUND


async def test_unloading_what_is_not_loaded_is_fine_and_so_is_unloading_dependents(
    served: Router,
) -> None:
    parameters = {"unload_dependents": messages.ModelRepositoryParameter(bool_param=True)}

    await served.call("RepositoryModelUnload", model_name="iris", parameters=parameters)

    assert served.orders.empty()


async def test_statistics_are_for_those_who_may_see_the_model(served: Router) -> None:
    reply = work_pb2.WorkReply(rows=4, batch_rows=4, leads=True)
    for name in ("iris", "team:wine"):
        served.statistics.record(version(name), reply, ok=True, now_ms=5, total_ns=9)
    await served.call("RepositoryModelLoad", model_name="other:beer")

    everything = await served.call("ModelStatistics")
    team = await served.call("ModelStatistics", TEAM)
    wine = await served.call("ModelStatistics", TEAM, name="team:wine", version="2")

    counted = [
        (s.name, s.version, s.inference_count, [m.byte_size for m in s.memory_usage])
        for s in everything.model_stats
    ]
    assert counted == [("iris", "2", 4, []), ("other:beer", "2", 0, [7]), ("team:wine", "2", 4, [])]
    assert [s.name for s in team.model_stats] == ["team:wine"]
    assert wine.model_stats == team.model_stats
    assert (
        await served.refused("ModelStatistics", TEAM, name="iris")
        is grpc.StatusCode.PERMISSION_DENIED
    )
    assert await served.refused("ModelStatistics", version="2") is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_model_nobody_called_has_zeros(served: Router) -> None:
    (stats,) = (await served.call("ModelStatistics", name="iris")).model_stats

    assert (stats.name, stats.version, stats.inference_count, stats.last_inference) == (
        "iris",
        "2",
        0,
        0,
    )


async def test_a_configuration_has_the_name_it_was_asked_by(served: Router) -> None:
    answer = await served.call("ModelConfig", ("caller", "team"), name="team:wine")

    assert (answer.config.name, answer.config.backend) == ("team:wine", "skops")


async def test_settings_are_for_operators(served: Router) -> None:
    for rpc in ("TraceSetting", "LogSettings"):
        for grant in (("editor", "*"), ("operator", "team")):
            assert await served.refused(rpc, grant) is grpc.StatusCode.PERMISSION_DENIED
        assert (await served.call(rpc, ("operator", "*"))).settings


async def test_log_settings_act_on_the_process(served: Router) -> None:
    value = messages.LogSettingsRequest.SettingValue
    before = (await served.call("LogSettings")).settings

    changed = (
        await served.call("LogSettings", settings={"log_error": value(bool_param=False)})
    ).settings

    assert (before["log_error"].bool_param, changed["log_error"].bool_param) == (True, False)
    assert not served.process.process.log_levels.writes(40)
    restored = (await served.call("LogSettings", settings={"log_error": value()})).settings
    assert restored == before
    wrong = {"log_file": value(string_param="/tmp/x")}
    assert await served.refused("LogSettings", settings=wrong) is grpc.StatusCode.INVALID_ARGUMENT


async def test_trace_settings_act_on_the_process(served: Router) -> None:
    value = messages.TraceSettingRequest.SettingValue

    changed = (
        await served.call("TraceSetting", settings={"trace_rate": value(value=["5"])})
    ).settings

    assert list(changed["trace_rate"].value) == ["5"]
    assert served.process.process.tracing.sampling.every == 5
    assert (await served.call("TraceSetting", model_name="iris")).settings == changed
    of_model = {"trace_rate": value(value=["1"])}
    found = await served.refused("TraceSetting", model_name="iris", settings=of_model)
    assert found is grpc.StatusCode.INVALID_ARGUMENT
    collector = {"trace_level": value(value=["TIMESTAMPS"])}
    assert (
        await served.refused("TraceSetting", settings=collector)
        is grpc.StatusCode.FAILED_PRECONDITION
    )


async def test_shared_memory_is_not_offered_nor_advertised(served: Router) -> None:
    for kind in ("System", "Cuda"):
        for verb in ("Status", "Register", "Unregister"):
            assert (
                await served.refused(f"{kind}SharedMemory{verb}") is grpc.StatusCode.UNIMPLEMENTED
            )
    assert not [name for name in EXTENSIONS if "shared_memory" in name or name == "sequence"]
