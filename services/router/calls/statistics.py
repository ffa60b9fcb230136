"""What became of the requests of each model version since the router started, and where their time
went.

Pure counting on the hot path, in plain integers; the words and the units are those of the Open
Inference Protocol's statistics extension: nanoseconds, and milliseconds since 1970. Memory is
bounded whatever callers send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stellwerk.inference.v2 import grpc_service_pb2 as messages
from stellwerk.job.v1 import work_pb2

# Versions that are remembered; beyond it the one that was first called goes.
_MAX_VERSIONS = 10_000
# A batch size beyond these many different ones is counted in the totals alone.
_MAX_BATCH_SIZES = 512
# Places in the answer of a decoupled model; all later answers count with the last.
MAX_PLACES = 128


class Duration:
    """A number of events and their time together."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = self.ns = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def message(self) -> messages.StatisticDuration:
        """As the protocol has it."""
        return messages.StatisticDuration(count=self.count, ns=self.ns)


class Batch:
    """The calls of one batch size."""

    __slots__ = ("calls", "infer_ns", "input_ns", "output_ns")

    def __init__(self) -> None:
        self.calls = self.input_ns = self.infer_ns = self.output_ns = 0


class Place:
    """The answers at one place of a decoupled model's answers."""

    __slots__ = ("cancel", "compute_infer", "compute_output", "empty", "fail", "success")

    def __init__(self) -> None:
        self.compute_infer, self.compute_output = Duration(), Duration()
        self.success, self.fail, self.empty, self.cancel = (
            Duration(),
            Duration(),
            Duration(),
            Duration(),
        )


class Counts:
    """One version's numbers."""

    __slots__ = (
        "batches", "executions", "fails", "fails_ns", "hits", "hits_ns", "infer_ns", "input_ns", "last_ms", "oks",
        "oks_ns", "output_ns", "places", "queue_ns", "rows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.last_ms = self.rows = self.executions = 0
        self.oks = self.oks_ns = self.fails = self.fails_ns = 0
        self.queue_ns = self.input_ns = self.infer_ns = self.output_ns = 0
        self.hits = self.hits_ns = 0
        self.batches: dict[int, Batch] = {}
        self.places: list[Place] = []


class Statistics:
    """The counts of all versions, by resource name."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def record(
        self,
        version_name: str,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        now_ms: int,
        total_ns: int,
    ) -> None:
        """One request has ended after `total_ns` in the router; `reply` is the runtime's answer,
        None if none came.

        A reply that more follow ends no request: it counts as a call of the model at most. See
        `record_answer`.
        """
        counts = self._counts.get(version_name)
        if counts is None:
            counts = self._add(version_name)
        if reply is not None and reply.leads:
            _call(counts, reply)
        if not ok or reply is None:
            counts.fails += 1
            counts.fails_ns += total_ns
            return
        if reply.more:
            return
        counts.last_ms = now_ms
        counts.oks += 1
        counts.oks_ns += total_ns
        counts.queue_ns += reply.queue_ns
        if reply.cached:
            counts.hits += 1
            counts.hits_ns += reply.input_ns + reply.compute_ns + reply.output_ns
            return
        counts.rows += reply.rows or 1
        counts.input_ns += reply.input_ns
        counts.infer_ns += reply.compute_ns
        counts.output_ns += reply.output_ns

    def record_answer(
        self,
        version_name: str,
        place: int,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        total_ns: int,
    ) -> None:
        """One of the answers of a decoupled model, the `place`-th from 0, `total_ns` after the one
        before it.

        Without a reply its caller went away; `ok` with a reply that has no outputs is an empty
        answer.
        """
        counts = self._counts.get(version_name)
        if counts is None:
            counts = self._add(version_name)
        while len(counts.places) <= min(place, MAX_PLACES - 1):
            counts.places.append(Place())
        found = counts.places[min(place, MAX_PLACES - 1)]
        if reply is None:
            found.cancel.add(total_ns)
            return
        if not ok:
            found.fail.add(total_ns)
        elif reply.outputs:
            found.success.add(total_ns)
        else:
            found.empty.add(total_ns)
            return
        found.compute_infer.add(reply.compute_ns)
        found.compute_output.add(reply.output_ns)

    def _add(self, version_name: str) -> Counts:
        if len(self._counts) >= _MAX_VERSIONS:
            del self._counts[next(iter(self._counts))]
        counts = self._counts[version_name] = Counts()
        return counts

    def versions(self) -> Sequence[str]:
        """The resource names of the versions that were called."""
        return list(self._counts)

    def of(self, version_name: str) -> Counts:
        """A version's counts; zeros if nobody called it."""
        return self._counts.get(version_name) or Counts()


def _call(counts: Counts, reply: work_pb2.WorkReply) -> None:
    """The model was called once, for as many requests as were joined."""
    counts.executions += 1
    size = reply.batch_rows or reply.rows or 1
    batch = counts.batches.get(size)
    if batch is None:
        if len(counts.batches) >= _MAX_BATCH_SIZES:
            return
        batch = counts.batches[size] = Batch()
    batch.calls += 1
    batch.input_ns += reply.input_ns
    batch.infer_ns += reply.compute_ns
    batch.output_ns += reply.output_ns


def describe(
    name: str, version: str, counts: Counts, *, memory_bytes: int, caches: bool
) -> messages.ModelStatistics:
    """The counts as the protocol's message. `caches`: answers are kept, so each call was a look-up
    in vain, whose time nobody takes. The requests' compute times are those of the calls they were
    joined into."""
    computed = counts.oks - counts.hits
    duration: Callable[..., Any] = messages.StatisticDuration
    described = messages.ModelStatistics(
        name=name,
        version=version,
        last_inference=counts.last_ms,
        inference_count=counts.rows,
        execution_count=counts.executions,
        inference_stats=messages.InferStatistics(
            success=duration(count=counts.oks, ns=counts.oks_ns),
            fail=duration(count=counts.fails, ns=counts.fails_ns),
            queue=duration(count=counts.oks, ns=counts.queue_ns),
            compute_input=duration(count=computed, ns=counts.input_ns),
            compute_infer=duration(count=computed, ns=counts.infer_ns),
            compute_output=duration(count=computed, ns=counts.output_ns),
            cache_hit=duration(count=counts.hits, ns=counts.hits_ns),
            cache_miss=duration(count=computed if caches else 0, ns=0),
        ),
    )
    for size, batch in sorted(counts.batches.items()):
        described.batch_stats.add(
            batch_size=size,
            compute_input=duration(count=batch.calls, ns=batch.input_ns),
            compute_infer=duration(count=batch.calls, ns=batch.infer_ns),
            compute_output=duration(count=batch.calls, ns=batch.output_ns),
        )
    if memory_bytes:
        described.memory_usage.add(type="CPU", id=0, byte_size=memory_bytes)
    for index, place in enumerate(counts.places):
        described.response_stats[str(index)].CopyFrom(_place(place))
    return described


def _place(place: Place) -> messages.InferResponseStatistics:
    return messages.InferResponseStatistics(
        compute_infer=place.compute_infer.message(),
        compute_output=place.compute_output.message(),
        success=place.success.message(),
        fail=place.fail.message(),
        empty_response=place.empty.message(),
        cancel=place.cancel.message(),
    )
