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
