"""Metrics and traces. Metrics are always kept; spans are made only if a collector is configured.

Trace context (W3C traceparent) is passed on in either case, so that callers' traces join across
gRPC and AMQP.

Metrics join by their labels, whose names mean the same in all services: `service`, `rpc` (a gRPC
method, /package.Service/Method), `code` (a gRPC status), `model_version` (a resource name) and
`reason` (of a ServiceError or of a rejection).
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from services.chassis.config import CannotListen
from services.chassis.context import CallContext

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Upper bounds of the histogram of RPC durations, in seconds: a fast infer takes a millisecond, and
# no unary call may last longer than minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def valid_traceparent(value: str) -> str:
    """Returns the value if it is a W3C traceparent, else ""."""
    return value if _TRACEPARENT.fullmatch(value) else ""


def new_registry(service: str, version: str, is_ready: Callable[[], bool]) -> CollectorRegistry:
    """Returns a registry with the metrics that every process has.

    They are the process's memory, CPU time, start and open files (`process_*`), the interpreter's
    (`python_*`), `stellwerk_build_info` and `stellwerk_ready`. Series `*_created` are left out for
    all registries of the process: nothing uses them, and they double the number of lines.

    `is_ready` is called in the thread of a scrape.
    """
    disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Gauge(
        "stellwerk_build_info",
        "1; its labels name the release",
        ["service", "version"],
        registry=registry,
    )
    build.labels(service, version).set(1)
    ready = Gauge(
        "stellwerk_ready",
        "1 if the process can do its work, else 0",
        ["service"],
        registry=registry,
    )
    ready.labels(service).set_function(lambda: float(is_ready()))
    return registry


class _Durations:
    """The events of one kind: the sum of their seconds, and their number by bucket."""

    __slots__ = ("buckets", "seconds")

    def __init__(self, buckets: int) -> None:
        self.seconds = 0.0
        self.buckets = [0] * buckets


class Timings(Collector):
    """Counts events by all of their labels, and times them by all labels but the last.

    Counts in plain numbers, which a scrape reads: `n` events that took equally long cost as much as
    one, which the library's histogram cannot do. `observe` is called in one thread.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        counter: tuple[str, str],
        histogram: tuple[str, str],
        labels: Sequence[str],
        buckets: Sequence[float],
    ) -> None:
        """Takes name and documentation of both metrics, and the buckets' upper bounds in
        seconds.
        """
        self._counter = counter
        self._histogram = histogram
        self._labels = labels
        self._bounds = buckets
        self._counts: Counts[tuple[str, ...]] = Counts()
        self._durations: dict[tuple[str, ...], _Durations] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], seconds: float, count: int = 1) -> None:
        """Counts `count` events with these labels that each took this many seconds."""
        self._counts[labels] += count
        durations = self._durations.get(labels[:-1])
        if durations is None:
            # The last bucket has no upper bound.
            durations = self._durations[labels[:-1]] = _Durations(len(self._bounds) + 1)
        durations.seconds += seconds * count
        durations.buckets[bisect_left(self._bounds, seconds)] += count

    def collect(self) -> Iterator[Metric]:
        """Yields the two metrics for a scrape, which runs in a thread of its own."""
        counter = CounterMetricFamily(*self._counter, labels=self._labels)
        for labels, count in list(self._counts.items()):
            counter.add_metric(labels, count)
        yield counter
        bounds = [floatToGoString(bound) for bound in (*self._bounds, math.inf)]
        histogram = HistogramMetricFamily(*self._histogram, labels=self._labels[:-1])
        for labels, found in list(self._durations.items()):
            counts = list(zip(bounds, accumulate(found.buckets), strict=True))
            histogram.add_metric(labels, counts, found.seconds)
        yield histogram


class CallMetrics:
    """Counts and times calls by RPC and status code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._timings = Timings(
            registry,
            ("stellwerk_rpc", "RPCs served"),
            ("stellwerk_rpc_seconds", "Seconds from the start to the end of an RPC"),
            ["rpc", "code"],
            _BUCKETS,
        )

    def observe(self, method: str, code: str, seconds: float, count: int = 1) -> None:
        """Counts `count` calls that each ended with this status code after this many seconds."""
        self._timings.observe((method, code), seconds, count)


def serve_metrics(registry: CollectorRegistry, address: str) -> tuple[Any, int]:
    """Serves the registry over HTTP in a thread of its own; returns the server and its port.

    Raises CannotListen if the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as exc:
        raise CannotListen(
            f"STELLWERK_METRICS_LISTEN: {address} cannot be bound: {exc.strerror or exc}"
        ) from None
    return server, server.server_port


@dataclass(slots=True)
class Sampling:
    """Chooses the units of work that become spans: one in `every`, `left` of them at most.

    `left` None sets no limit.
    """

    on: bool = True
    every: int = 1
    left: int | None = None
    _seen: int = field(default=0, init=False)

    def take(self) -> bool:
        """Counts a unit of work that begins; returns whether it becomes a span."""
        if not self.on or self.left == 0:
            return False
        self._seen += 1
        if self._seen % self.every:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Tracing:
    """Makes spans around units of work and exports them by OTLP; does nothing without endpoint."""

    def __init__(self, service: str, instance: str, endpoint: str) -> None:
        # Replaced by the trace settings of the protocol at any time.
        self.sampling = Sampling()
        self._tracer: Any = None
        self._provider: Any = None
        if not endpoint:
            return
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create(
            {"service.name": f"stellwerk-{service}", "service.instance.id": instance}
        )
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("stellwerk")

    @property
    def exports(self) -> bool:
        """True if there is a collector to export to."""
        return self._tracer is not None

    def begin(self, name: str, call: CallContext) -> Any:
        """Starts a span under the call's trace and makes it the parent of later calls.

        Returns None if tracing is off.
        """
        if self._tracer is None or not self.sampling.take():
            return None
        from opentelemetry.trace.propagation import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        parent = propagator.extract(
            {"traceparent": call.traceparent, "tracestate": call.tracestate}
        )
        span = self._tracer.start_span(name, context=parent)
        carrier: dict[str, str] = {}
        propagator.inject(carrier, context=set_span_in_context(span))
        call.traceparent = carrier["traceparent"]
        return span

    def record(self, name: str, traceparent: str, duration_ns: int, code: str) -> None:
        """Records work that has just ended as a span under `traceparent`.

        It is for work that is no call of its own.
        """
        if self._tracer is None or not self.sampling.take():
            return
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        span = self._tracer.start_span(
            name, context=parent, start_time=time.time_ns() - duration_ns
        )
        self.end(span, code)

    def end(self, span: Any, code: str) -> None:
        """Ends a span that `begin` returned."""
        if span is not None:
            span.set_attribute("rpc.code", code)
            span.end()

    def close(self) -> None:
        """Exports the last spans."""
        if self._provider is not None:
            self._provider.shutdown()


class LookUps(Collector):
    """The look-ups of a cache by their result, as a metric. A scrape reads the cache's own counts;
    the library's counter would cost 0.5 µs a look-up.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        counts: Callable[[], tuple[int, int]],
    ) -> None:
        """Asks `counts` for the number of hits and of misses."""
        self._name = name
        self._documentation = documentation
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the metric with a sample for each result."""
        metric = CounterMetricFamily(self._name, self._documentation, labels=["result"])
        for result, count in zip(("hit", "miss"), self._counts(), strict=True):
            metric.add_metric([result], count)
        yield metric
