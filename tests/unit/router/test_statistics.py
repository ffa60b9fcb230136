"""What is counted of requests: rows, calls and times, each where the protocol wants it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.router.calls.statistics import MAX_PARTS, Statistics
from services.router.open_inference.model_statistics import describe
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns

NAME = "buckets/default/models/iris/versions/3"


def reply(rows: int = 1, **fields: Any) -> work_pb2.WorkReply:
    values = {
        "batch_rows": rows,
        "leads": True,
        "queue_ns": 5,
        "input_ns": 10,
        "compute_ns": 100,
        "output_ns": 20,
    }
    return work_pb2.WorkReply(rows=rows, **{**values, **fields})


def described(statistics: Statistics, **changes: Any) -> Any:
    return describe(
        "iris", "3", statistics.of(NAME), **{"memory_bytes": 0, "caches": False, **changes}
    )


def record(
    statistics: Statistics, answer: work_pb2.WorkReply | None, *, ok: bool = True, now_ms: int = 1
) -> None:
    statistics.record(NAME, answer, ok=ok, now_ms=now_ms, total_ns=1000)


def test_a_request_of_eight_rows_counts_eight_and_one_call() -> None:
    statistics = Statistics()

    record(statistics, reply(8), now_ms=1_700_000_000_000)

    found = described(statistics)
    assert (found.name, found.version, found.last_inference) == ("iris", "3", 1_700_000_000_000)
    assert (found.inference_count, found.execution_count) == (8, 1)
    stats = found.inference_stats
    assert [(d.count, d.ns) for d in (stats.success, stats.queue, stats.compute_input)] == [
        (1, 1000),
        (1, 5),
        (1, 10),
    ]
    assert [(d.count, d.ns) for d in (stats.compute_infer, stats.compute_output)] == [
        (1, 100),
        (1, 20),
    ]
    assert stats.fail.count == stats.cache_hit.count == stats.cache_miss.count == 0


def test_requests_joined_into_one_call_count_one_execution_of_their_size_together() -> None:
    statistics = Statistics()

    for place in range(3):
        record(statistics, reply(2, batch_rows=6, leads=place == 0))

    found = described(statistics)
    assert (found.inference_count, found.execution_count, found.inference_stats.success.count) == (
        6,
        1,
        3,
    )
    (batch,) = found.batch_stats
    assert (batch.batch_size, batch.compute_infer.count, batch.compute_infer.ns) == (6, 1, 100)


def test_what_failed_counts_as_failed_and_its_call_as_a_call() -> None:
    statistics = Statistics()

    record(statistics, None, ok=False)
    record(statistics, reply(4), ok=False)

    found = described(statistics)
    assert (found.inference_stats.fail.count, found.inference_stats.fail.ns) == (2, 2000)
    assert (found.inference_count, found.execution_count, found.last_inference) == (0, 1, 0)


def test_an_answer_from_the_cache_is_a_success_without_inference() -> None:
    statistics = Statistics()

    record(statistics, reply(4))
    record(statistics, reply(4, cached=True, leads=False, input_ns=3, compute_ns=0, output_ns=4))

    found = described(statistics, caches=True)
    stats = found.inference_stats
    assert (found.inference_count, found.execution_count, stats.success.count) == (4, 1, 2)
    assert (stats.cache_hit.count, stats.cache_hit.ns, stats.cache_miss.count) == (1, 7, 1)
    assert stats.compute_infer.count == 1


def test_inputs_without_rows_count_one() -> None:
    statistics = Statistics()

    record(statistics, reply(0, batch_rows=0))

    found = described(statistics)
    assert found.inference_count == 1
    assert [batch.batch_size for batch in found.batch_stats] == [1]


def test_a_part_of_an_answer_ends_no_request() -> None:
    statistics = Statistics()

    record(statistics, reply(more=True))
    record(statistics, reply(leads=False))

    found = described(statistics)
    assert (found.inference_stats.success.count, found.inference_count, found.execution_count) == (
        1,
        1,
        1,
    )


def test_answers_of_decoupled_models_are_counted_by_place() -> None:
    statistics = Statistics()
    answer = reply(more=True)
    answer.outputs.add(name="y")

    statistics.record_part(NAME, 0, answer, ok=True, total_ns=7)
    statistics.record_part(NAME, 1, reply(), ok=True, total_ns=8)
    statistics.record_part(NAME, 1, reply(), ok=False, total_ns=9)
    statistics.record_part(NAME, 2, None, ok=False, total_ns=10)

    places = described(statistics).response_stats
    assert sorted(places) == ["0", "1", "2"]
    assert (places["0"].success.ns, places["0"].compute_infer.ns) == (7, 100)
    assert (places["1"].empty_response.ns, places["1"].fail.ns, places["1"].success.count) == (
        8,
        9,
        0,
    )
    assert (places["2"].cancel.count, places["2"].cancel.ns) == (1, 10)


def test_nobody_called_it_is_all_zeros_and_no_batches() -> None:
    found = described(Statistics(), memory_bytes=77)

    assert found.inference_stats.success.count == 0
    assert list(found.batch_stats) == []
    assert [(use.type, use.byte_size) for use in found.memory_usage] == [("CPU", 77)]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans(), st.booleans())
    )
)
def test_every_request_is_counted_once_and_every_batch_is_an_execution(
    given_replies: list[tuple[int, int, bool, bool, bool]],
) -> None:
    statistics = Statistics()

    for rows, batch_rows, leads, ok, cached in given_replies:
        record(statistics, reply(rows, batch_rows=batch_rows, leads=leads, cached=cached), ok=ok)

    found = described(statistics, caches=True)
    stats = found.inference_stats
    assert stats.success.count + stats.fail.count == len(given_replies)
    assert stats.cache_hit.count + stats.cache_miss.count == stats.success.count
    assert sum(batch.compute_infer.count for batch in found.batch_stats) == found.execution_count
    assert [b.batch_size for b in found.batch_stats] == sorted(
        {b.batch_size for b in found.batch_stats}
    )


def test_memory_is_bounded_whatever_callers_send() -> None:
    statistics = Statistics()

    for number in range(2000):
        record(statistics, reply(number + 1))
        statistics.record_part(NAME, number, reply(), ok=True, total_ns=1)

    found = described(statistics)
    assert found.execution_count == 2000
    assert len(found.batch_stats) == 512
    assert len(found.response_stats) == MAX_PARTS
    assert found.response_stats[str(MAX_PARTS - 1)].empty_response.count == 2000 - MAX_PARTS + 1


def test_the_versions_that_were_called_first_are_forgotten_first() -> None:
    statistics = Statistics()

    for number in range(10_001):
        statistics.record(f"v{number}", None, ok=False, now_ms=0, total_ns=0)

    assert len(statistics.versions()) == 10_000
    assert "v0" not in statistics.versions()
    assert "v10000" in statistics.versions()


_REPLIES = st.builds(
    work_pb2.WorkReply,
    queue_ns=st.integers(0, 99),
    compute_ns=st.integers(0, 99),
    input_ns=st.integers(0, 99),
    output_ns=st.integers(0, 99),
    rows=st.integers(0, 3),
    batch_rows=st.integers(0, 9),
    leads=st.booleans(),
    cached=st.booleans(),
)


@given(st.lists(st.tuples(st.none() | _REPLIES, st.booleans(), st.integers(1, 70)), max_size=6))
def test_requests_counted_together_leave_what_they_leave_one_by_one(
    groups: list[tuple[work_pb2.WorkReply | None, bool, int]],
) -> None:
    together, alone = Statistics(), Statistics()

    for moment, (answer, ok, count) in enumerate(groups):
        together.record(NAME, answer, ok=ok, now_ms=moment, total_ns=1000, count=count)
        for index in range(count):
            member = answer and columns.member_reply(answer, index, count)
            alone.record(NAME, member, ok=ok, now_ms=moment, total_ns=1000)

    assert together.of(NAME) == alone.of(NAME)
