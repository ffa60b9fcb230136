"""The mixed load: every combination once, true lengths, and right answers told from wrong ones."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httptools
import numpy as np
import orjson
import pytest

from benchmarks.mixed.load import SCRIPT
from benchmarks.mixed.models import mixed_models
from benchmarks.mixed.requests import MixedRequest, combinations, packed
from benchmarks.rest_load import run_wrk

TOKENS = {f"tenant-{number}": f"token-{number}" for number in range(1, 5)}


@pytest.fixture(scope="module")
def requests() -> list[MixedRequest]:
    return list(combinations("127.0.0.1:1", mixed_models(), TOKENS))


class _Seen:
    """Keeps what an HTTP parser reads."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.complete = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def _unpacked(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        line, _, data = data.partition(b"\n")
        before, behind = map(int, line.split())
        yield data[:before], data[before : before + behind]
        data = data[before + behind :]


def _answer(request: MixedRequest, number: int, values: list[float]) -> bytes:
    output = {"name": "y", "data": values}
    return orjson.dumps({"id": f"{number:012d}", "outputs": [output]})


def test_each_model_is_asked_by_each_tenant_in_each_form(requests: list[MixedRequest]) -> None:
    bodies = [orjson.loads(one.with_id(1).partition(b"\r\n\r\n")[2]) for one in requests]
    tensors = [body["inputs"][0] for body in bodies]
    kinds = {
        (one.model, one.tenant, tensor["datatype"], tuple(tensor["shape"]))
        for one, tensor in zip(requests, tensors, strict=True)
    }

    assert len(requests) == len(kinds) == 8 * 4 * 3
    assert len({tensor["datatype"] for tensor in tensors}) == 4
    assert all(np.prod(tensor["shape"]) == len(tensor["data"]) for tensor in tensors)


def test_a_request_is_whole_http_with_the_tenants_token(requests: list[MixedRequest]) -> None:
    for one in requests:
        seen = _Seen()
        httptools.HttpRequestParser(seen).feed_data(one.with_id(7))

        assert seen.complete == 1
        assert seen.headers[b"Authorization"] == f"Bearer {TOKENS[one.tenant]}".encode()
        assert orjson.loads(seen.body)["id"] == "000000000007"


def test_the_script_reads_back_what_was_packed(requests: list[MixedRequest]) -> None:
    assert list(_unpacked(packed(requests))) == [(one.before, one.behind) for one in requests]


def test_only_the_right_values_under_the_right_id_are_right(requests: list[MixedRequest]) -> None:
    for one in requests:
        values = one.right.tolist()

        assert one.is_right(_answer(one, 3, values), 3)
        assert not one.is_right(_answer(one, 4, values), 3)
        assert not one.is_right(_answer(one, 3, [value + 1 for value in values]), 3)
        assert not one.is_right(_answer(one, 3, values[:-1]), 3)


def test_two_runs_send_the_same_requests(requests: list[MixedRequest]) -> None:
    again = list(combinations("127.0.0.1:1", mixed_models(), TOKENS))

    assert packed(again) == packed(requests)


class _Here:
    """A system whose work is done in this process, which is not measured."""

    name = "here"
    versions: Mapping[str, str] = {}

    def parts(self) -> Mapping[str, Sequence[int]]:
        return {}

    def stop(self) -> None:
        """Nothing to stop."""


class _Server(ThreadingHTTPServer):
    """Keeps the path, the token and the body of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Answers)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk here: apt-get install wrk")
def test_each_request_that_leaves_has_an_id_of_its_own(
    requests: list[MixedRequest], tmp_path: Path
) -> None:
    (tmp_path / "requests").write_bytes(packed(requests))
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        measured = run_wrk(_Here(), url, SCRIPT, [tmp_path / "requests"], connections=2, seconds=1)
        server.shutdown()
        thread.join()

    ids = [orjson.loads(body)["id"] for _, _, body in server.seen]
    models = {path.split("/")[3] for path, _, _ in server.seen}
    assert measured.errors == 0
    assert len(set(ids)) == len(ids) >= measured.requests > 0
    assert models <= {one.model for one in requests} and len(models) > 1
    assert {token for _, token, _ in server.seen} <= {f"Bearer {one}" for one in TOKENS.values()}
