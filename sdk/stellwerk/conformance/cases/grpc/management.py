"""Statistics, configuration, the model repository and shared memory over gRPC."""

from __future__ import annotations

import time
from typing import Any

import grpc

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.cases.rest.management import is_ready
from stellwerk.conformance.expect import NotApplicable, code, equal, that
from stellwerk.conformance.server.rpc import infer_request, parameter
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.server.waiting import eventually
from stellwerk.conformance.values import Tensor, echoed, sample
from stellwerk.inference.v2 import grpc_service_pb2 as pb
from stellwerk.inference.v2 import model_config_pb2

STATISTICS = Cases(Area.STATISTICS, Transport.GRPC, "extension_statistics.md", "statistics")
CONFIGURATION = Cases(
    Area.CONFIGURATION, Transport.GRPC, "extension_model_configuration.md", "model_configuration"
)
REPOSITORY = Cases(
    Area.REPOSITORY, Transport.GRPC, "extension_model_repository.md", "model_repository"
)
SHARED = Cases(Area.SHARED_MEMORY, Transport.GRPC, "extension_shared_memory.md")
_NOBODY, _UNLOADED = "conformance_nobody", "UINT16"
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_NOT_OFFERED = (grpc.StatusCode.UNIMPLEMENTED,)


def _statistics(s: Subject, model: str) -> Any:
    found = s.grpc.call("ModelStatistics", pb.ModelStatisticsRequest(name=model)).model_stats
    that(found and found[-1].name == model, f"statistics of {model}", list(found))
    return found[-1]


@STATISTICS.specified("An inference adds to inference_count, success and the time of computing")
def _counting(s: Subject) -> None:
    model = s.model("fails_on_13")
    good = Tensor("INPUT0", "INT64", (1, 1), [1])
    s.call(model, [good])
    before = _statistics(s, model)
    s.call(model, [good])

    def look() -> None:
        after = _statistics(s, model)
        that(after.inference_count > before.inference_count, "a higher inference_count", after)
        that(after.execution_count > before.execution_count, "a higher execution_count", after)
        success, earlier = after.inference_stats.success, before.inference_stats.success
        that(
            success.count > earlier.count and success.ns > earlier.ns,
            "more success, and longer",
            after,
        )
        that(
            after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns,
            "more computing",
            after,
        )

    eventually(look)


@STATISTICS.specified("last_inference is the time of the last inference in milliseconds")
def _last_inference(s: Subject) -> None:
    begun = int(time.time() * 1000)
    s.call(s.echo(), [sample("FP32")])

    def look() -> None:
        last = _statistics(s, s.echo()).last_inference
        # The clocks of two machines may differ by a little.
        that(begun - 60_000 <= last <= begun + 60_000, f"about {begun}", last)

    eventually(look)


@STATISTICS.specified("Without a name all models are listed")
def _all(s: Subject) -> None:
    s.call(s.echo(), [sample("FP32")])
    names = [
        found.name
        for found in s.grpc.call("ModelStatistics", pb.ModelStatisticsRequest()).model_stats
    ]
    that(s.echo() in names, f"{s.echo()} among the models", names)


@STATISTICS.sensible("Statistics of an unknown model are NOT_FOUND")
def _unknown_statistics(s: Subject) -> None:
    code(s.grpc.refusal("ModelStatistics", pb.ModelStatisticsRequest(name=_NOBODY)), _NOT_FOUND)


@CONFIGURATION.specified("ModelConfig names the model, its inputs and its outputs")
def _configuration(s: Subject) -> None:
    config = s.grpc.call("ModelConfig", pb.ModelConfigRequest(name=s.echo("BYTES"))).config
    equal(config.name, s.echo("BYTES"), "name")
    string = model_config_pb2.TYPE_STRING
    equal([(t.name, t.data_type) for t in config.input], [("INPUT0", string)], "input")
    equal([(t.name, t.data_type) for t in config.output], [("OUTPUT0", string)], "output")


@CONFIGURATION.specified("ModelConfig says whether a model is decoupled")
def _decoupled(s: Subject) -> None:
    config = s.grpc.call("ModelConfig", pb.ModelConfigRequest(name=s.model("count_up"))).config
    equal(config.model_transaction_policy.decoupled, True, "decoupled")


@CONFIGURATION.sensible("ModelConfig of an unknown model is NOT_FOUND")
def _unknown_configuration(s: Subject) -> None:
    code(s.grpc.refusal("ModelConfig", pb.ModelConfigRequest(name=_NOBODY)), _NOT_FOUND)


def _index(s: Subject, **fields: Any) -> dict[str, str]:
    found = s.grpc.call("RepositoryIndex", pb.RepositoryIndexRequest(**fields)).models
    return {entry.name: entry.state for entry in found}


@REPOSITORY.specified("The index lists models with their state")
def _index_all(s: Subject) -> None:
    s.call(s.echo(), [sample("FP32")])
    that(_index(s).get(s.echo()), f"a state of {s.echo()}", _index(s))


@REPOSITORY.convention("The state of a model that serves is READY", "Triton, model_lifecycle.cc")
def _index_state(s: Subject) -> None:
    s.call(s.echo(), [sample("FP32")])
    equal(_index(s).get(s.echo()), "READY", "state")


@REPOSITORY.specified("The index with ready lists models that are ready alone")
def _index_ready(s: Subject) -> None:
    states = set(_index(s, ready=True).values())
    that(all(map(is_ready, states)), "READY alone", states)


@REPOSITORY.specified("A model is unloaded, is then not READY, and is loaded again")
def _unload_and_load(s: Subject) -> None:
    model = s.echo(_UNLOADED)
    s.grpc.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model))
    try:
        eventually(
            lambda: that(
                not is_ready(_index(s).get(model, "")), f"{model} not READY", _index(s).get(model)
            )
        )
    finally:
        s.grpc.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model))
    echoed(s.call(model, [sample(_UNLOADED)]), sample(_UNLOADED), "OUTPUT0")


@REPOSITORY.sensible("Loading an unknown model is NOT_FOUND")
def _load_unknown(s: Subject) -> None:
    code(
        s.grpc.refusal("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=_NOBODY)),
        _NOT_FOUND,
    )


@REPOSITORY.sensible("Unloading an unknown model is NOT_FOUND")
def _unload_unknown(s: Subject) -> None:
    code(
        s.grpc.refusal(
            "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=_NOBODY)
        ),
        _NOT_FOUND,
    )


@SHARED.sensible("Shared memory that is not offered is UNIMPLEMENTED")
def _not_offered(s: Subject) -> None:
    if {"system_shared_memory", "cuda_shared_memory"} <= s.advertised:
        raise NotApplicable("the server offers it; that takes memory shared with its machine")
    if "system_shared_memory" not in s.advertised:
        request = pb.SystemSharedMemoryRegisterRequest(name="r", key="/r", byte_size=8)
        code(s.grpc.refusal("SystemSharedMemoryRegister", request), *_NOT_OFFERED)
    if "cuda_shared_memory" not in s.advertised:
        cuda = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"x", byte_size=8)
        code(s.grpc.refusal("CudaSharedMemoryRegister", cuda), *_NOT_OFFERED)


@SHARED.sensible("An input in a region that nobody registered is refused, and not read as empty")
def _unknown_region(s: Subject) -> None:
    request = infer_request(s.echo(), [sample("FP32")])
    del request.raw_input_contents[:]
    request.inputs[0].parameters["shared_memory_region"].CopyFrom(parameter("conformance_nowhere"))
    request.inputs[0].parameters["shared_memory_byte_size"].CopyFrom(parameter(24))
    allowed = (grpc.StatusCode.INVALID_ARGUMENT, _NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
    code(s.grpc.refusal("ModelInfer", request), *allowed)
