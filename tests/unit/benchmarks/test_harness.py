"""The load generators against real servers: what they count, and that nothing is left running."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from benchmarks import grpc_load, rest_load
from benchmarks.echo import EchoServer
from benchmarks.measurement import GrpcCall, RestCall, WrongAnswer
from benchmarks.memory import MemoryWatch, start_of
from benchmarks.processes import Child, NotReady
from benchmarks.work import FLOWER, infer_body, infer_message, is_setosa
from tests.fakes.eventually import eventually

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here")
needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="no wrk here: apt-get install wrk"
)


class _Here:
    """A system whose work is done in this process, which is not measured."""

    name = "here"
    versions: Mapping[str, str] = {}

    def parts(self) -> Mapping[str, Sequence[int]]:
        return {}

    def stop(self) -> None:
        """Nothing to stop."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == "Bearer t" and b"inputs" in body
        answer = b'{"outputs": [{"data": [0]}]}'
        self.send_response(200 if known and self.path == "/right" else 503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _call(url: str) -> RestCall:
    body = infer_body("x", "FP64", [FLOWER])
    return RestCall(
        url, body, {"Content-Type": "application/json", "Authorization": "Bearer t"}, is_setosa
    )


async def test_what_a_system_takes_before_it_is_asked() -> None:
    server = EchoServer()
    try:
        start = start_of(server)
        with MemoryWatch(server) as watch:
            await eventually(lambda: bool(watch.since(0.0)))
    finally:
        server.stop()

    assert 0 < start.seconds < 60
    assert 5 < start.memory < 1000
    assert start.memory == pytest.approx(sum(start.memory_parts.values()))
    assert all(megabytes > 5 for _, megabytes in watch.since(0.0))


@needs_h2load
def test_a_grpc_server_is_measured_and_then_gone() -> None:
    server = EchoServer()
    try:
        measured = grpc_load.measure(
            server, server.call(infer_message("iris", "x", "FP64")), in_flight=4, seconds=1
        )
        pids = [pid for part in server.parts().values() for pid in part]
    finally:
        server.stop()

    assert measured.requests > 0
    assert measured.errors == 0
    assert 0 < measured.p50 < 1000 * measured.seconds
    assert not any(psutil.pid_exists(pid) for pid in pids)


@needs_h2load
def test_a_wrong_answer_is_not_measured() -> None:
    server = EchoServer()
    call = replace(
        server.call(infer_message("iris", "x", "FP64")),
        right=lambda answer: answer.model_name != "iris",
    )
    try:
        with pytest.raises(WrongAnswer, match="another answer"):
            grpc_load.measure(server, call, in_flight=1, seconds=1)
    finally:
        server.stop()


@needs_h2load
def test_what_does_not_speak_grpc_is_not_measured(address: str) -> None:
    call = GrpcCall(address.removeprefix("http://"), b"", {})  # it speaks HTTP/1.1

    with pytest.raises(WrongAnswer, match="UNAVAILABLE"):
        grpc_load.measure(_Here(), call, in_flight=1, seconds=0.1)


@needs_wrk
def test_body_and_headers_reach_an_http_server(address: str) -> None:
    rest_load.check("here", _call(f"{address}/right"))
    measured = rest_load.measure(_Here(), _call(f"{address}/right"), connections=2, seconds=1)

    assert measured.requests > 0
    assert measured.errors == 0


@needs_wrk
def test_an_http_server_that_only_fails_is_not_measured(address: str) -> None:
    with pytest.raises(WrongAnswer, match="503"):
        rest_load.check("here", _call(f"{address}/wrong"))
    with pytest.raises(WrongAnswer, match="none of"):
        rest_load.measure(_Here(), _call(f"{address}/wrong"), connections=2, seconds=1)


def test_a_process_that_ends_before_it_is_ready_tells_its_last_words(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo no port left >&2; exit 3"], tmp_path / "log")

    with pytest.raises(NotReady, match="no port left"):
        child.wait_until(lambda: False, seconds=10)
    child.stop()
