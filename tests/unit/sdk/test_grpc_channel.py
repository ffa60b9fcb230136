"""The blocking gRPC client on a channel of grpcio-testing: what goes out, and what becomes of each
kind of answer.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc_testing
import numpy as np
import pytest

from stellwerk.client import Client, errors
from stellwerk.client.session.session import ClientState, SyncSession
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.grpc import GrpcTransport
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec
from stellwerk.wire import tensors
from tests.unit.sdk.fake_platform import rich_status

REPOSITORY = repository.DESCRIPTOR.services_by_name["RepositoryService"]
ROUTER = router.DESCRIPTOR.services_by_name["RouterService"]
VERSION = repository.ModelVersion(
    name="buckets/default/models/m/versions/1",
    signature=[
        MethodSignature(
            method="predict",
            inputs=[TensorSpec(name="X", datatype="FP32", shape=[-1, 2])],
            outputs=[TensorSpec(name="predict", datatype="INT64", shape=[-1])],
        )
    ],
)


class Stage:
    """A client on a test channel, and the other end of it."""

    def __init__(self) -> None:
        self.channel: Any = grpc_testing.channel(
            [REPOSITORY, ROUTER], grpc_testing.strict_real_time()
        )
        transport = GrpcTransport(Endpoint("grpc://stage:1", "secret"), self.channel)
        self.client = Client(SyncSession(transport, ClientState(timeout=5, bucket="default")))
        self._pool = ThreadPoolExecutor(1)

    def start(self, work: Any) -> Future[Any]:
        return self._pool.submit(work)

    def take(self, service: Any, method: str) -> tuple[Any, Any, Any]:
        """The metadata, the request and the call that the client made."""
        found: tuple[Any, Any, Any] = self.channel.take_unary_unary(service.methods_by_name[method])
        return found

    def answer(self, call: Any, response: Any) -> None:
        call.send_initial_metadata(())
        call.terminate(response, (), grpc.StatusCode.OK, "")

    def fail(self, call: Any, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        call.send_initial_metadata(())
        call.terminate(None, trailers, code, details)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_predict_sends_tensors_of_the_signature_and_gives_arrays(stage: Stage) -> None:
    result = stage.start(lambda: stage.client.runtime.model("m").predict([[1, 2], [3, 4]]))

    metadata, resolve, call = stage.take(REPOSITORY, "ResolveModelVersion")
    stage.answer(call, repository.ResolveModelVersionResponse(model_version=VERSION))
    _, predict, call = stage.take(ROUTER, "Predict")
    output = tensors.from_numpy("predict", np.array([0, 1]))
    stage.answer(call, router.PredictResponse(outputs=[output], model_version=VERSION.name))

    assert ("authorization", "Bearer secret") in metadata
    assert resolve.name == predict.name == "buckets/default/models/m"
    assert predict.method == "predict"
    assert [(t.name, t.datatype, list(t.shape)) for t in predict.inputs] == [("X", "FP32", [2, 2])]
    assert result.result(5).tolist() == [0, 1]


def test_the_signature_is_asked_for_once(stage: Stage) -> None:
    model = stage.client.runtime.model("m")
    response = router.PredictResponse(outputs=[tensors.from_numpy("predict", np.array([0]))])

    for turn in range(3):
        result = stage.start(lambda: model.predict([[1, 2]]))
        if turn == 0:
            stage.answer(
                stage.take(REPOSITORY, "ResolveModelVersion")[2],
                repository.ResolveModelVersionResponse(model_version=VERSION),
            )
        stage.answer(stage.take(ROUTER, "Predict")[2], response)
        assert result.result(5).tolist() == [0]


def test_a_listing_asks_for_page_after_page(stage: Stage) -> None:
    result = stage.start(lambda: stage.client.models.list('name = "a*"', bucket="team"))

    _, first, call = stage.take(REPOSITORY, "ListModels")
    stage.answer(
        call,
        repository.ListModelsResponse(models=[repository.Model(name="a")], next_page_token="t"),
    )
    _, second, call = stage.take(REPOSITORY, "ListModels")
    stage.answer(call, repository.ListModelsResponse(models=[repository.Model(name="b")]))

    assert (first.parent, first.filter, first.page_token) == ("buckets/team", 'name = "a*"', "")
    assert second.page_token == "t"
    assert [model.name for model in result.result(5)] == ["a", "b"]


def test_a_rich_status_becomes_the_class_that_was_raised(stage: Stage) -> None:
    raised = errors.RequirementUnmet("no runtime has a cuda device", accelerator="cuda")
    result = stage.start(stage.client.runtimes)

    _, _, call = stage.take(ROUTER, "ListRuntimes")
    trailers = (("grpc-status-details-bin", rich_status(raised).SerializeToString()),)
    stage.fail(call, raised.code, raised.message, trailers)

    with pytest.raises(errors.RequirementUnmet) as caught:
        result.result(5)
    assert (caught.value.message, caught.value.metadata) == (raised.message, raised.metadata)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlinePassed),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.TooLarge),
        (grpc.StatusCode.UNKNOWN, errors.Internal),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotImplementedHere),
    ],
)
def test_a_bare_status_becomes_the_general_class_of_its_code(
    stage: Stage, code: grpc.StatusCode, cls: Any
) -> None:
    result = stage.start(stage.client.runtimes)

    stage.fail(stage.take(ROUTER, "ListRuntimes")[2], code, "words of the library")

    with pytest.raises(cls) as caught:
        result.result(5)
    assert type(caught.value) is cls


def test_a_broken_rich_status_is_no_reason_to_crash(stage: Stage) -> None:
    result = stage.start(stage.client.runtimes)

    call = stage.take(ROUTER, "ListRuntimes")[2]
    stage.fail(call, grpc.StatusCode.NOT_FOUND, "gone", (("grpc-status-details-bin", b"\xff\xff"),))

    with pytest.raises(errors.NotFound, match="gone"):
        result.result(5)


def test_an_unavailable_peer_is_asked_again(stage: Stage) -> None:
    result = stage.start(stage.client.runtimes)

    stage.fail(stage.take(ROUTER, "ListRuntimes")[2], grpc.StatusCode.UNAVAILABLE, "GOAWAY")
    response = router.ListRuntimesResponse(runtimes=[router.Runtime(name="runtimes/a")])
    stage.answer(stage.take(ROUTER, "ListRuntimes")[2], response)

    assert [runtime.name for runtime in result.result(5)] == ["runtimes/a"]


def test_a_method_the_model_lacks_is_refused_without_a_call(stage: Stage) -> None:
    result = stage.start(lambda: stage.client.runtime.model("m").transform([[1, 2]]))

    call = stage.take(REPOSITORY, "ResolveModelVersion")[2]
    stage.answer(call, repository.ResolveModelVersionResponse(model_version=VERSION))

    with pytest.raises(errors.InvalidInput, match="'transform'; it has predict"):
        result.result(5)
