"""One trace follows a prediction from the gateway over the broker to the runtime, when a collector
is configured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from stellwerk.client import connect
from tests.journey.stack import Platform, eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps the spans it is sent, as (service, name, trace id, span id, parent id)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str, str, str]] = []

    def Export(self, request: Any, _: Any) -> Any:
        for resource in request.resource_spans:
            service = next(
                a.value.string_value
                for a in resource.resource.attributes
                if a.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.spans.append((service, span.name, *ids))
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(0)


def test_a_trace_crosses_the_broker(
    collector: tuple[Collector, str],
    rabbitmq: str,
    tmp_path_factory: pytest.TempPathFactory,
    iris: tuple[Any, np.ndarray[Any, Any], Any],
) -> None:
    kept, endpoint = collector
    options = ["--otel-endpoint", endpoint]
    platform = Platform(
        tmp_path_factory.mktemp("traced"), broker=rabbitmq, runtimes=1, options=options
    )
    try:
        with connect(platform.http, platform.token) as client:
            client.models.put(iris[0], "iris", example=iris[1][:2])
        body = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]}).encode()
        parent = f"00-{TRACE}-b7ad6b7169203331-01"
        status, _, data = platform.raw(
            "POST", "/v1/buckets/default/models/iris:predict", body, Traceparent=parent
        )
        assert status == 200, data

        def ours() -> dict[str, tuple[str, str]]:
            """Span and parent ids by service, of the spans of our trace that a prediction makes."""
            return {
                service: (span, parent)
                for service, name, trace, span, parent in kept.spans
                if trace == TRACE and ("predict" in name.lower() or service == "stellwerk-runtime")
            }

        wanted = {"stellwerk-api_gateway", "stellwerk-router", "stellwerk-runtime"}
        eventually(lambda: wanted <= set(ours()), 20, "all three services sent their spans")
        spans = ours()
        assert spans["stellwerk-api_gateway"][1] == "b7ad6b7169203331"
        assert spans["stellwerk-router"][1] == spans["stellwerk-api_gateway"][0]
        assert spans["stellwerk-runtime"][1] == spans["stellwerk-router"][0]
    finally:
        platform.stop()
