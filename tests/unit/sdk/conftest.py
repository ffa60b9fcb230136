"""Clients of every kind in front of a platform in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stellwerk.client import connect, connect_async
from tests.unit.sdk.fake_platform import TOKEN, FakePlatform, serve_grpc, serve_http


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def http_url(platform: FakePlatform) -> Iterator[str]:
    with serve_http(platform) as url:
        yield url


@pytest.fixture(params=["http", "grpc", "http-async", "grpc-async"])
async def client(request: pytest.FixtureRequest, platform: FakePlatform) -> AsyncIterator[Any]:
    """A client of each kind; results are awaited by `settled`."""
    kind: str = request.param
    with (serve_http if kind.startswith("http") else serve_grpc)(platform) as url:
        if kind.endswith("async"):
            async with connect_async(url, TOKEN, timeout=10) as found:
                yield found
        else:
            with connect(url, TOKEN, timeout=10) as found:
                yield found


@pytest.fixture(scope="session")
def iris() -> Any:
    return load_iris()


@pytest.fixture(scope="session")
def pipeline(iris: Any) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        iris.data, iris.target
    )
