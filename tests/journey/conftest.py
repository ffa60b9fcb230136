"""The whole platform over each of the two brokers, as a user starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stellwerk.client import Client, connect
from tests.journey import lies
from tests.journey.doors import Door, door_of
from tests.journey.stack import Platform


@pytest.fixture(scope="session", params=["amqp", "pull"])
def platform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform with two runtimes and a MongoDB of its own: over RabbitMQ, then over the embedded
    broker.
    """
    broker = request.getfixturevalue("rabbitmq") if request.param == "amqp" else "pull"
    running = Platform(tmp_path_factory.mktemp(request.param), broker=broker)
    yield running
    code = running.stop()
    assert code == 0, running.log_path.read_text()[-4000:]


@pytest.fixture(scope="session", params=["amqp", "pull"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform whose one runtime has two slots and loads pickles, for the models of `probe`; its
    log tells all.
    """
    broker = request.getfixturevalue("rabbitmq") if request.param == "amqp" else "pull"
    settings = {"STELLWERK_ALLOW_UNSAFE_FORMATS": "true", "STELLWERK_SLOTS": "2"}
    folder = tmp_path_factory.mktemp(f"lab-{request.param}")
    running = Platform(
        folder, broker=broker, runtimes=1, options=["--log-level", "debug"], settings=settings
    )
    yield running
    code = running.stop()
    assert code == 0, running.log_path.read_text()[-4000:]


@pytest_asyncio.fixture(params=["rest", "grpc"], loop_scope="session")
async def door(request: pytest.FixtureRequest, lab: Platform) -> AsyncIterator[Door]:
    """The laboratory's REST door, then its gRPC door."""
    async with door_of(lab, request.param) as opened:
        yield opened


@pytest.fixture(params=["http", "grpc"])
def sw(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Client]:
    """An administrator's client over REST, then over gRPC."""
    url = platform.http if request.param == "http" else f"grpc://{platform.grpc}"
    with connect(url, platform.token) as client:
        yield client


@pytest.fixture(scope="session")
def iris() -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A fitted pipeline, its inputs and its targets."""
    X, y = load_iris(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(X, y), X, y


@pytest.fixture(scope="session")
def iris_stored(platform: Platform, iris: tuple[Any, Any, Any]) -> str:
    """The pipeline stored as default/iris; its version's resource name."""
    model, X, _ = iris
    with connect(platform.http, platform.token) as client:
        return str(client.models.put(model, "iris", example=X[:2]).name)


@pytest.fixture(scope="session")
def carrier(platform: Platform) -> str:
    """A model that gives back what it got, numbers and words."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"same {name}"]) for name in ("numbers", "words")],
        "carrier",
        [
            helper.make_tensor_value_info("numbers", TensorProto.INT32, [None, 2]),
            helper.make_tensor_value_info("words", TensorProto.STRING, [None]),
        ],
        [
            helper.make_tensor_value_info("same numbers", TensorProto.INT32, [None, 2]),
            helper.make_tensor_value_info("same words", TensorProto.STRING, [None]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    with connect(platform.http, platform.token) as client:
        client.models.put(model, lies.MODEL)
    return lies.MODEL


@pytest.fixture(scope="session")
def slow_model(platform: Platform) -> str:
    """Doubles its input after forty useless matrix products: enough work that 200 calls are in
    flight for a while.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = 1400
    constants = [
        numpy_helper.from_array(np.zeros((1, size), np.float32), "spread"),
        numpy_helper.from_array(np.eye(size, dtype=np.float32) * 0.5, "half"),
        numpy_helper.from_array(np.ones((size, 1), np.float32), "gather"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    nodes = [helper.make_node("Cast", ["X"], ["narrow"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", ["narrow", "spread"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{n}", "half"], [f"h{n + 1}"]) for n in range(40)]
    nodes += [
        helper.make_node("MatMul", ["h40", "gather"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["nothing"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["X", "X"], ["double"]),
        helper.make_node("Add", ["double", "nothing"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    with connect(platform.http, platform.token) as client:
        client.models.put(model, "slow")
    return "slow"
