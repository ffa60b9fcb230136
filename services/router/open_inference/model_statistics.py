"""Describes a version's counts in the words of the protocol's statistics extension. Pure."""

from __future__ import annotations

from services.router.calls.statistics import Duration, PartCounts, VersionCounts
from stellwerk.inference.v2 import grpc_service_pb2 as messages


def describe(
    name: str, version: str, counts: VersionCounts, *, memory_bytes: int, caches: bool
) -> messages.ModelStatistics:
    """Returns the counts of a version as the protocol's message.

    `caches`: replies are cached, so each model call followed a cache miss, whose time is not taken.
    The compute times of a request are those of the call that it was batched into.
    """
    computed = counts.oks - counts.hits
    duration = messages.StatisticDuration
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
    for index, part in enumerate(counts.parts):
        described.response_stats[str(index)].CopyFrom(_part(part))
    return described


def _part(part: PartCounts) -> messages.InferResponseStatistics:
    return messages.InferResponseStatistics(
        compute_infer=_duration(part.compute_infer),
        compute_output=_duration(part.compute_output),
        success=_duration(part.success),
        fail=_duration(part.fail),
        empty_response=_duration(part.empty),
        cancel=_duration(part.cancel),
    )


def _duration(duration: Duration) -> messages.StatisticDuration:
    return messages.StatisticDuration(count=duration.count, ns=duration.ns)
