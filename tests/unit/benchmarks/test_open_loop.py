"""Load that does not wait: when requests leave, what becomes of them, and that a stalled server
cannot hide.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import open_loop
from benchmarks.arrivals import Step, arrivals
from benchmarks.http_client import BadResponse, parse, request_bytes
from benchmarks.measurement import RestCall

STEPS = st.lists(st.builds(Step, rate=st.floats(0, 200), seconds=st.floats(0.1, 5)), max_size=4)


class _Slow(BaseHTTPRequestHandler):
    """Takes turns with others for 100 ms a request."""

    protocol_version = "HTTP/1.1"
    turn = threading.Lock()
    never = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.turn:
            self.never.wait(0.1)
        answer = b"{}" if self.path == "/good" else b'{"error": "no"}'
        self.send_response(200 if self.path == "/good" else 429)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go before they are answered are part of the test."""


@pytest.fixture
def address() -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _call(url: str) -> RestCall:
    return RestCall(url, b"{}", {"Content-Type": "application/json"}, lambda body: True)


@given(STEPS, st.integers())
def test_arrivals_ascend_and_stay_within_the_steps_that_have_a_rate(
    steps: list[Step], seed: int
) -> None:
    times = list(arrivals(steps, Random(seed)))

    assert times == sorted(times) == list(arrivals(steps, Random(seed)))
    start = 0.0
    for step in steps:
        if step.rate == 0:
            assert not [at for at in times if start <= at < start + step.seconds]
        start += step.seconds
    assert all(0 < at < start for at in times)


def test_arrivals_come_at_the_rate_of_their_step() -> None:
    times = list(arrivals([Step(1000, 10), Step(100, 10)], Random(7)))

    assert sum(at < 10 for at in times) == pytest.approx(10_000, rel=0.05)
    assert sum(at >= 10 for at in times) == pytest.approx(1000, rel=0.1)


def test_latency_counts_from_when_a_request_should_have_left(address: str) -> None:
    # Ten requests at once that are answered one after the other: the last has waited for all before
    # it.
    load = open_loop.run(_call(f"{address}/good"), [Step(1000, 0.01)], deadline=10)

    latencies = [sample.latency for sample in load.samples]
    assert len(latencies) >= 5
    assert max(latencies) > 80 * len(latencies)
    assert {sample.outcome for sample in load.samples} == {"good"}


def test_a_client_goes_a_moment_after_its_deadline(address: str) -> None:
    load = open_loop.run(_call(f"{address}/good"), [Step(1000, 0.02)], deadline=0.15)

    ends = Counter(sample.outcome for sample in load.samples)
    assert ends["good"] >= 1 and ends["abandoned"] >= 1
    limit = 1000 * (0.15 + open_loop.GRACE_SECONDS)
    assert all(
        sample.latency >= limit - 1 for sample in load.samples if sample.outcome == "abandoned"
    )
    assert all(sample.latency > 150 for sample in load.samples if sample.outcome == "late")


def test_callers_of_a_closed_loop_wait_for_their_answer(address: str) -> None:
    load = open_loop.run_closed(_call(f"{address}/refused"), callers=2, seconds=0.5, deadline=5)

    assert {sample.outcome for sample in load.samples} == {"refused"}
    assert 2 <= len(load.samples) <= 8


def test_a_server_that_is_not_there_is_a_failure_with_its_reason() -> None:
    load = open_loop.run(_call("http://127.0.0.1:1/"), [Step(50, 0.2)], deadline=1)

    assert {sample.outcome for sample in load.samples} <= {"failed"}
    assert load.problem


@pytest.mark.parametrize(
    ("status", "body", "seconds", "expected"),
    [
        (200, b"", 1.9, "good"),
        (200, b"", 2.1, "late"),
        (429, b"", 0.1, "refused"),
        (503, b'{"error":"Exceeds maximum queue size"}', 0.1, "refused"),
        (503, b'{"error":"Request timeout expired"}', 2.0, "expired"),
        (504, b"", 2.0, "expired"),
        (500, b"", 0.1, "failed"),
    ],
)
def test_what_an_answer_is_worth(status: int, body: bytes, seconds: float, expected: str) -> None:
    assert open_loop.outcome(status, body, seconds, deadline=2.0) == expected


@given(st.binary(max_size=50), st.integers(0, 200))
def test_a_response_in_pieces_is_whole_only_at_its_end(body: bytes, cut: int) -> None:
    response = b"HTTP/1.1 429 Too Many\r\nX: y\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    assert parse(response) == (429, body)
    if cut < len(response):
        assert parse(response[:cut]) is None


def test_a_response_without_a_length_is_not_understood() -> None:
    with pytest.raises(BadResponse):
        parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


def test_a_request_is_written_as_http() -> None:
    host, port, data = request_bytes("http://127.0.0.1:80/v2/models/a/infer", b"{}", {"A": "b"})

    assert (host, port) == ("127.0.0.1", 80)
    assert (
        data == b"POST /v2/models/a/infer HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: 2\r\nA:"
        b" b\r\n\r\n{}"
    )
