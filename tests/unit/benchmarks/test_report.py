"""What load generators, metrics and process tables say, read; and the report, written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, grpc_load, report, rest_load
from benchmarks.measurement import Measurement, WrongAnswer
from benchmarks.ours import samples_sum
from benchmarks.processes import spent_between
from benchmarks.ratios import compare
from benchmarks.work import is_setosa

WRK = """Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
RESULT {"requests": 4000, "microseconds": 2000000, "p50": 15000, "p99": 30000, \
"status": 1000, "socket": 2}
"""
H2LOAD = """Stopped all clients for thread #0

finished in 2.00s, 500.00 req/s, 52.00KB/s
requests: 1000 total, 1064 started, 1000 done, 990 succeeded, 10 failed, 10 errored, 0 timeout
status codes: 990 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 101.5KB (104000) total, 3.01KB (3080) headers (space savings 96.29%), 56.2KB (57600) data
"""


def _measurement(name: str, per_second: float) -> Measurement:
    return Measurement(
        name, 5000, 0, 2.0, per_second, 1.5, None, 0.4, {"router": 0.1, "runtime": 0.3}
    )


def _gateway_reading() -> dict[str, Any]:
    spent = [{"api_gateway": spent} for spent in (0.02, 0.03, 0.05)]
    measured = [replace(_measurement("Stellwerk", 1.0), cpu_parts=parts) for parts in spent]
    comparison = compare([1.0], [1.0])
    return figures.gateway_cpu(figures.Result(figures.B2, comparison, measured, [])).as_json()


def _report() -> dict[str, Any]:
    loads = {"pairs": 3, "seconds": 1, "warm_up": 0}
    rates = iter([600.0, 100.0, 900.0, 100.0, 800.0, 100.0])
    result = figures.measure(
        figures.B1,
        figures.Plan(**loads),
        lambda seconds: _measurement("Stellwerk", next(rates) if seconds else 1.0),
        lambda seconds: _measurement("MLServer", next(rates) if seconds else 1.0),
        lambda text: None,
    )
    return {
        "when": "2030-01-02T03:04:05+00:00",
        "commit": "abc1234",
        "dirty": False,
        "effort": "3 pairs",
        "environment": {
            "cpu": "a processor",
            "cores": 2,
            "memory_gib": 4.0,
            "system": "Linux",
            "python": "3.11",
            "load_average": [0.5],
            "pinning": "none",
        },
        "systems": {"Stellwerk": {"broker": "amqp (RabbitMQ 4.0)"}},
        "starts": {
            "Stellwerk": {
                "seconds": 6.04,
                "memory": 500.0,
                "memory_parts": {"router": 100.0, "mongod": 400.0},
            }
        },
        "figures": [
            result.as_json(),
            {"id": "B8", "title": "loads", "target": 1, "loads": 1.0, "reached": True},
            {"id": "B3", "reached": False, "failed": "nobody answered"},
            _gateway_reading(),
        ],
    }


def _report_of(result: figures.Result) -> dict[str, Any]:
    return _report() | {"figures": [result.as_json()]}


def test_answers_that_are_not_2xx_are_errors_and_no_requests() -> None:
    measured = rest_load.parse("peer", WRK, cpu={"front": 4.5, "back": 1.5})

    assert (measured.requests, measured.errors, measured.per_second) == (3000, 1002, 1500)
    assert (measured.p50, measured.p99, measured.cpu) == (15, 30, 2)
    assert measured.cpu_parts == {"front": 1.5, "back": 0.5}


def test_a_system_that_only_fails_has_no_speed() -> None:
    with pytest.raises(WrongAnswer, match="answered none of 4000"):
        rest_load.parse("peer", WRK.replace('"status": 1000', '"status": 4000'), cpu={})


def test_a_grpc_call_without_a_message_is_an_error_although_http_calls_it_a_success() -> None:
    sent = grpc_load.parse(H2LOAD)
    measured = grpc_load.measurement(
        "peer", sent, answer_bytes=60, latencies=[1.0, 2.0, 3.0], cpu={"all": 0.48}
    )

    assert sent == grpc_load.Sent(
        succeeded=990, failed=10, data_bytes=57600, seconds=2.0, unfinished=64
    )
    assert (measured.requests, measured.errors, measured.per_second) == (960, 40, 480)
    assert (measured.p50, measured.p99, measured.cpu) == (2.0, None, 0.5)


def test_good_answers_that_differ_in_length_cannot_be_told_from_failed_ones() -> None:
    with pytest.raises(WrongAnswer, match="differ in length"):
        grpc_load.measurement(
            "peer", grpc_load.parse(H2LOAD), answer_bytes=50, latencies=[1.0], cpu={}
        )


def test_a_part_of_an_answer_under_way_at_the_end_is_no_other_length() -> None:
    sent = grpc_load.Sent(succeeded=151, failed=0, data_bytes=151_500, seconds=1.0, unfinished=1)

    measured = grpc_load.measurement("peer", sent, answer_bytes=1000, latencies=[1.0], cpu={})

    assert (measured.requests, measured.errors) == (151, 0)
    with pytest.raises(WrongAnswer, match="differ in length"):
        grpc_load.measurement("peer", replace(sent, unfinished=0), 1000, [1.0], {})


def test_calls_that_all_fail_have_no_speed() -> None:
    refused = grpc_load.Sent(succeeded=1000, failed=0, data_bytes=0, seconds=2.0)

    with pytest.raises(WrongAnswer, match="none of 1000"):
        grpc_load.measurement("peer", refused, answer_bytes=60, latencies=[0.1] * 1000, cpu={})


def test_a_server_that_is_not_there_has_no_speed() -> None:
    with pytest.raises(WrongAnswer, match="measured nothing"):
        grpc_load.parse("starting benchmark...\n[ERROR] Failed to connect\n")


def test_systems_are_measured_in_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def load(name: str, seconds: float) -> Measurement:
        order.append(f"{name} {seconds:g}")
        return _measurement(name, 1.0)

    figures.measure(
        figures.B1,
        figures.Plan(2, 5, 1),
        lambda s: load("A", s),
        lambda s: load("B", s),
        lambda text: None,
    )

    assert order == ["A 1", "B 1", "A 5", "B 5", "A 5", "B 5"]


def test_the_report_is_written_as_json_and_as_a_table(tmp_path: Path) -> None:
    kept = report.write(_report(), tmp_path)

    assert kept.name == "2030-01-02-abc1234.json"
    assert json.loads((tmp_path / "latest.json").read_text()) == json.loads(kept.read_text())
    rows = [
        line for line in (tmp_path / "latest.md").read_text().splitlines() if line.startswith("| B")
    ]
    assert (
        "**8.00** | 6.00 to 9.00 | ≥ 8 (aim 12) | yes | 800 / 100 | 1.50 / 1.50 | – / –" in rows[0]
    )
    assert "| **1** |" in rows[1]
    assert "not measured: nobody answered" in rows[2]
    assert "| **0.030 ms** | 0.020 ms to 0.050 ms | ≤ 0.03 | yes |" in rows[3]
    assert "- Stellwerk: broker amqp (RabbitMQ 4.0)\n" in (tmp_path / "latest.md").read_text()
    assert (
        "- Stellwerk: 6.0 s, 500 MB (router 100, mongod 400)\n"
        in (tmp_path / "latest.md").read_text()
    )
    assert (
        "- B1: runtime 0.300 (75%), router 0.100 (25%)\n  - runtime 0.300"
        in (tmp_path / "latest.md").read_text()
    )
    assert {row.count(" | ") for row in rows} == {len(report.COLUMNS) - 1}


def test_a_run_with_errors_is_invalid_and_reaches_no_target() -> None:
    broken = iter([0, 0, 1])

    def ours(seconds: float) -> Measurement:
        return replace(_measurement("Stellwerk", 9000.0), errors=next(broken))

    result = figures.measure(
        figures.B1,
        figures.Plan(2, 1, 0),
        ours,
        lambda seconds: _measurement("MLServer", 100.0),
        lambda text: None,
    )

    assert result.comparison.ratio > figures.B1.target
    assert not result.valid and not result.reached
    row = next(line for line in report.table(_report_of(result)).splitlines() if "| B1 |" in line)
    assert "| invalid |" in row and row.endswith("| 1 / 0 |")


def test_the_load_generators_own_time_is_a_share_of_a_core() -> None:
    over_rest = rest_load.parse("peer", WRK, cpu={"all": 1.0}, own=0.5)
    over_grpc = grpc_load.measurement(
        "peer", grpc_load.parse(H2LOAD), 60, [1.0], {"all": 1.0}, own=0.5
    )

    assert (over_rest.generator, over_grpc.generator) == (0.25, 0.25)


def test_throughput_per_cpu_second_is_compared_where_that_is_the_figure() -> None:
    cheap, dear = (replace(_measurement("a", 1.0), cpu=cpu) for cpu in (0.1, 0.4))

    assert figures.B18.value(cheap) == 10_000
    assert figures.B18.value(cheap) / figures.B18.value(dear) == pytest.approx(4)


def test_samples_of_one_model_are_summed() -> None:
    text = (
        "# HELP loads_total x\n"
        'loads_total{model_version="buckets/default/models/iris/versions/1"} 2.0\n'
        'loads_total{model_version="buckets/default/models/iris/versions/2"} 1.0\n'
        'loads_total{model_version="buckets/default/models/other/versions/1"} 4.0\n'
        'loads_total_created{model_version="buckets/default/models/iris/versions/1"} 8.0\n'
    )

    assert samples_sum(text, "loads_total", "/iris/") == 3


def test_cpu_time_of_a_new_process_counts_and_of_a_gone_one_does_not() -> None:
    before = {"a": {1: 1.0, 2: 5.0}, "b": {4: 1.0}}

    assert spent_between(before, {"a": {1: 3.0, 3: 0.5}, "b": {4: 1.0}}) == {"a": 2.5, "b": 0.0}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (b'{"outputs": [{"data": [0]}]}', True),
        (b'{"outputs": [{"data": [[0]]}]}', True),
        (b'{"outputs": [{"data": [1]}]}', False),
        (b'{"outputs": []}', False),
    ],
)
def test_only_the_right_class_is_a_right_answer(answer: bytes, right: bool) -> None:
    assert is_setosa(answer) is right
