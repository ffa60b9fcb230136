"""Counts the requests of each model version since the router started, and where their time went.

Pure counting on the hot path, in plain integers. The figures and units are those of the Open
Inference Protocol's statistics extension: nanoseconds, and milliseconds since 1970. Memory is
bounded whatever callers send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.chassis.bounded_cache import BoundedCache
from stellwerk.job.v1 import work_pb2

# Versions whose counts are kept; beyond, the version that was called first goes.
_MAX_VERSIONS = 10_000
# Different batch sizes of a version that are counted apart; others count in the totals alone.
_MAX_BATCH_SIZES = 512
# Replies to one request of a decoupled model that are counted apart; later ones count as the last.
MAX_PARTS = 128


@dataclass(slots=True)
class Duration:
    """A number of events and the sum of their times."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Counts an event of `ns` nanoseconds."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class BatchCounts:
    """The model calls of one batch size."""

    calls: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class PartCounts:
    """The replies of one index, of a decoupled model that gives several to a request."""

    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    empty: Duration = field(default_factory=Duration)
    # Requests whose caller went away before this reply.
    cancel: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class VersionCounts:
    """The requests and model calls of one version."""

    # When the last request was answered, in milliseconds since 1970.
    last_ms: int = 0
    # Rows of answered requests that were computed, and model calls for them.
    rows: int = 0
    executions: int = 0
    # Requests by how they ended, with their time in the router.
    oks: int = 0
    oks_ns: int = 0
    fails: int = 0
    fails_ns: int = 0
    # Time of answered requests in the runtime's queue, and in the calls that they were batched
    # into.
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    # Requests that were answered out of the cache.
    hits: int = 0
    hits_ns: int = 0
    # Model calls by their rows.
    batches: dict[int, BatchCounts] = field(default_factory=dict)
    # Replies by their index, of a decoupled model.
    parts: list[PartCounts] = field(default_factory=list)


class Statistics:
    """The counts of all versions by resource name, whichever door their calls come through."""

    def __init__(self) -> None:
        self._counts: BoundedCache[str, VersionCounts] = BoundedCache(_MAX_VERSIONS)

    def record(
        self,
        version_name: str,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        now_ms: int,
        total_ns: int,
        count: int = 1,
    ) -> None:
        """Counts `count` requests that each ended after `total_ns` in the router with `reply`, None
        if no reply came. If the reply leads, one of them does.

        A reply that others follow ends no request and counts at most as a call of the model; see
        `record_part`.
        """
        counts = self._counts.get(version_name)
        if counts is None:
            counts = self._add(version_name)
        if reply is not None and reply.leads:
            _call(counts, reply)
        if not ok or reply is None:
            counts.fails += count
            counts.fails_ns += count * total_ns
            return
        if reply.more:
            return
        counts.last_ms = now_ms
        counts.oks += count
        counts.oks_ns += count * total_ns
        counts.queue_ns += count * reply.queue_ns
        if reply.cached:
            counts.hits += count
            counts.hits_ns += count * (reply.input_ns + reply.compute_ns + reply.output_ns)
            return
        counts.rows += count * (reply.rows or 1)
        counts.input_ns += count * reply.input_ns
        counts.infer_ns += count * reply.compute_ns
        counts.output_ns += count * reply.output_ns

    def record_part(
        self,
        version_name: str,
        index: int,
        reply: work_pb2.WorkReply | None,
        *,
        ok: bool,
        total_ns: int,
    ) -> None:
        """Counts the reply of this index, from 0, to a request that gets several, `total_ns` after
        the reply before it. `reply` is None if the caller went away instead.
        """
        counts = self._counts.get(version_name)
        if counts is None:
            counts = self._add(version_name)
        index = min(index, MAX_PARTS - 1)
        while len(counts.parts) <= index:
            counts.parts.append(PartCounts())
        found = counts.parts[index]
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

    def _add(self, version_name: str) -> VersionCounts:
        counts = VersionCounts()
        self._counts.keep(version_name, counts)
        return counts

    def versions(self) -> Sequence[str]:
        """Returns the resource names of the versions that were called."""
        return list(self._counts)

    def of(self, version_name: str) -> VersionCounts:
        """Returns a version's counts, zeros if nobody called it."""
        return self._counts.get(version_name) or VersionCounts()


def _call(counts: VersionCounts, reply: work_pb2.WorkReply) -> None:
    """Counts a model call, which is reported in the reply to one of its requests."""
    counts.executions += 1
    size = reply.batch_rows or reply.rows or 1
    batch = counts.batches.get(size)
    if batch is None:
        if len(counts.batches) >= _MAX_BATCH_SIZES:
            return
        batch = counts.batches[size] = BatchCounts()
    batch.calls += 1
    batch.input_ns += reply.input_ns
    batch.infer_ns += reply.compute_ns
    batch.output_ns += reply.output_ns
