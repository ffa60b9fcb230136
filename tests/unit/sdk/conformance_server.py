"""A small REST server of the protocol that keeps it, apart from the faults it is told to have.

It has the echo of FP32 alone. The suite must pass it when it has no fault, and must find each
fault.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "conformance_echo_fp32"
TENSORS = {
    "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, -1]}],
    "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, -1]}],
}
METADATA = {"name": MODEL, "versions": ["1"], "platform": "test_echo", **TENSORS}


class Wrong(Exception):
    """A request that the server refuses with this status."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        pages: dict[str, Any] = {
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            "/v2": {"name": "test", "version": "1", "extensions": []},
            f"/v2/models/{MODEL}": METADATA,
            f"/v2/models/{MODEL}/versions/1": METADATA,
            f"/v2/models/{MODEL}/ready": {"name": MODEL, "ready": True},
            f"/v2/models/{MODEL}/versions/1/ready": {"name": MODEL, "ready": True},
        }
        if self.path == "/v2/health/live" and "dead" in self.server.faults:
            self.answer(503, {"error": "gone"})
        elif self.path in pages:
            self.answer(200, pages[self.path])
        else:
            self.answer(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        faults = self.server.faults
        try:
            status, answer = 200, infer(body, self.path, faults)
        except Wrong as exc:
            status, answer = exc.status, {"error": str(exc)}
        except Exception as exc:  # any other way to be wrong is the caller's too
            status, answer = 400, {"error": str(exc) or "wrong"}
        if status == 400 and "dies of errors" in faults:
            faults.add("dead")
        if status == 400 and "errors are the server's" in faults:
            status = 500
        if status == 400 and "errors are taken" in faults:
            status = 200
        if status == 400 and "errors have no reason" in faults:
            answer = {"detail": "no"}
        self.answer(status, answer)

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def infer(body: bytes, path: str, faults: set[str]) -> dict[str, Any]:
    """The answer to one request; Wrong, or whatever Python raises, for one that is wrong."""
    if path not in (f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/1/infer"):
        raise Wrong("no such model", 404)
    request = json.loads(body)
    (tensor,) = request["inputs"]
    count = 1
    for size in tensor["shape"]:
        if type(size) is not int or size < 0 or size > 10**6:
            raise Wrong("a shape that cannot be")
        count *= size
    data = flat(tensor["data"])
    if (tensor["name"], tensor["datatype"], len(tensor["shape"])) != ("INPUT0", "FP32", 2) or len(
        data
    ) != count:
        raise Wrong("not the tensor that the model takes")
    if not all(isinstance(item, int | float) for item in data):
        raise Wrong("not a number")
    if any(output["name"] != "OUTPUT0" for output in request.get("outputs", [])):
        raise Wrong("no such output")
    if not all(
        isinstance(v, str | int | float | bool) for v in request.get("parameters", {}).values()
    ):
        raise Wrong("not a parameter")
    if not isinstance(request.get("id", ""), str):
        raise Wrong("not an id")
    return answer(request, tensor, [0.0] * count if "outputs are zeros" in faults else data, faults)


def answer(request: Any, tensor: Any, data: list[Any], faults: set[str]) -> dict[str, Any]:
    """The echo."""
    shape = tensor["shape"][::-1] if "shapes are turned" in faults else tensor["shape"]
    output = {"name": "OUTPUT0", "shape": shape, "datatype": "FP32", "data": data}
    known = {} if "ids are lost" in faults or "id" not in request else {"id": request["id"]}
    return {"model_name": MODEL, "model_version": "1", "outputs": [output], **known}


def flat(data: Any) -> list[Any]:
    """Nested lists as one."""
    if not isinstance(data, list):
        raise Wrong("not a list")
    return [item for part in data for item in (flat(part) if isinstance(part, list) else [part])]


class FaultyServer(ThreadingHTTPServer):
    """Listens on a free port; `faults` may be changed while it runs."""

    daemon_threads = True

    def __init__(self, *faults: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = set(faults)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*faults: str) -> Iterator[FaultyServer]:
    """A running server with these faults."""
    server = FaultyServer(*faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
