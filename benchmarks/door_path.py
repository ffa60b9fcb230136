"""What the gateway's HTTP door costs for one prediction, by piece: CPU-µs per request, everything
behind it left out.

`python -m benchmarks.door_path` prints a table. The pieces run in a loop of their own and are the
best of several rounds; the last lines come from wrk on a real socket, an empty ASGI application and
the door in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from benchmarks import rest_load
from benchmarks.measurement import RestCall
from benchmarks.processes import Child
from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.access_log import HttpJournal
from services.api_gateway.http.door import Doorkeeper, HttpDoor
from services.api_gateway.http.exchange import Limits
from services.api_gateway.http.request import SENDER
from services.api_gateway.http.server import HttpServer
from services.api_gateway.open_inference import infer_request
from services.api_gateway.open_inference import infer_response as infer_answer
from services.api_gateway.open_inference.infer_request import AS_JSON
from services.api_gateway.site import site_of
from services.api_gateway.upstream.channels import Upstreams
from services.api_gateway.upstream.model_calls import Answered
from services.chassis import logs, telemetry
from services.chassis.context import CallContext, Principal
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.open_inference import InferRequest

_CONNECTIONS, _SECONDS, _ROUNDS = 64, 2.0, 5
_PATH = b"/v2/models/iris/infer"
_BODY = orjson.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}
)
# As long as a token is.
_TOKEN = "e" * 400
_OUTPUT = tensor_pb2.Tensor(name="y", datatype="INT64", shape=[1], data=bytes(8))


class Instant:
    """Answers every call at once."""

    def __init__(self) -> None:
        self.answered = Answered("buckets/default/models/iris/versions/1", [_OUTPUT], True)

    async def call(self, ask: InferRequest, call: CallContext) -> Answered:
        """See `calls.Calls`."""
        return self.answered

    async def stream(self, ask: InferRequest, call: CallContext) -> AsyncGenerator[Answered]:
        """See `calls.Calls`."""
        yield self.answered


def settings() -> GatewaySettings:
    """A gateway on a free port, whose upstreams are never called."""
    return GatewaySettings(http_listen="127.0.0.1:0", listen="127.0.0.1:0", log_format="json")


def door(log: structlog.typing.FilteringBoundLogger) -> HttpDoor:
    """The door as the gateway has it, but for what is behind it."""
    given, principals = settings(), {_TOKEN: Principal("principals/ada")}
    upstreams = Upstreams(
        {"router": "", "repository": "", "controlplane": ""}, lambda _: SimpleNamespace()
    )  # type: ignore[arg-type, return-value]
    site = site_of(given, upstreams, Instant())

    async def exchange(bearer: str) -> str:
        return bearer

    tracing = telemetry.Tracing("api_gateway", "1", "")
    journal = HttpJournal(CollectorRegistry(), log, lambda _: None, tracing)
    return HttpDoor(
        site, Doorkeeper(exchange, principals.__getitem__), Limits.of(given), journal, log
    )


def process_log() -> structlog.typing.FilteringBoundLogger:
    """A process's log in production, on stderr."""
    return logs.configure("api_gateway", "api_gateway-1", levels=logs.Levels("info"), style="json")


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The least that an ASGI application can do."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"108")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b" " * 108})


class Sender:
    """A caller whose body is there and who takes any answer."""

    gone, whole, on_gone = False, True, None

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Drops the answer."""
        assert status == 200, body


def scope() -> dict[str, Any]:
    """A request as the server hands it over."""
    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"authorization", b"Bearer " + _TOKEN.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_BODY)),
    ]
    return {
        "type": "http", "method": "POST", "raw_path": _PATH, "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "extensions": {SENDER: Sender()},
    }  # fmt: skip


async def receive() -> dict[str, Any]:
    """The whole body."""
    return {"type": "http.request", "body": _BODY, "more_body": False}


async def best(
    work: Callable[[], Awaitable[Any]], rounds: int = _ROUNDS, times: int = 4000
) -> float:
    """CPU-µs of one unit of work, in the best of several rounds."""
    spent = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(times):
            await work()
        spent.append((time.process_time() - begun) / times * 1e6)
    return min(spent)


async def pieces() -> dict[str, float]:
    """CPU-µs by piece, in one process and without a socket."""
    ask, _ = infer_request.read(_BODY, "iris", "")
    answered, log = Instant().answered, process_log()
    silent = structlog.wrap_logger(structlog.BytesLogger(io.BytesIO()), wrapper_class=_Silent)
    loud_door, silent_door = door(log), door(silent)

    async def nothing() -> None: ...
    async def read() -> None:
        infer_request.read(_BODY, "iris", "")

    async def write() -> None:
        infer_answer.write(ask, AS_JSON, answered)

    async def whole() -> None:
        await loud_door(scope(), receive, None)

    async def whole_silent() -> None:
        await silent_door(scope(), receive, None)

    async def given() -> None:
        scope()

    empty, scoped = await best(nothing), await best(given)
    found = {"body → call": await best(read) - empty, "answer → body": await best(write) - empty}
    all_silent, everything = await best(whole_silent) - scoped, await best(whole) - scoped
    found["the door's rest"] = all_silent - sum(found.values())
    return {**found, "log line": everything - all_silent, "together": everything}


class _Silent(structlog.make_filtering_bound_logger(logging.ERROR)):  # type: ignore[misc]
    """Writes no lines of requests."""


class Served:
    """An application on a socket, in a process of its own."""

    versions: Mapping[str, str]

    def __init__(self, name: str) -> None:
        self.name, self.versions = name, {}
        self._directory = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "benchmarks.door_path", "--serve", name]
        self._child = Child(command, Path(self._directory.name) / "log", speaks=True)
        self.url = f"http://127.0.0.1:{int(self._child.first_line())}{_PATH.decode()}"

    def parts(self) -> Mapping[str, Sequence[int]]:
        """Its process."""
        return {self.name: self._child.pids()}

    def stop(self) -> None:
        self._child.stop()
        self._directory.cleanup()


async def serve(name: str) -> None:
    """Serves until it is ended; prints the port."""
    server = HttpServer(bare if name == "bare" else door(process_log()), settings())
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


def on_sockets(rounds: int) -> dict[str, float]:
    """CPU-µs per request under wrk, medians of rounds in turns."""
    systems = [Served("bare"), Served("door")]
    spent: dict[str, list[float]] = {system.name: [] for system in systems}
    try:
        for _ in range(rounds):
            for system in systems:
                call = RestCall(system.url, _BODY, {"Authorization": f"Bearer {_TOKEN}"}, bool)
                spent[system.name].append(
                    1000 * rest_load.measure(system, call, _CONNECTIONS, _SECONDS).cpu
                )
    finally:
        for system in systems:
            system.stop()
    return {f"{name}, on a socket": statistics.median(values) for name, values in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.door_path", description=__doc__)
    parser.add_argument("--serve", choices=["bare", "door"], help=argparse.SUPPRESS)
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help="of wrk on each [default: %(default)s]"
    )
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
        return
    with open("/dev/null", "wb") as nowhere:
        found = subprocess.run(
            [sys.executable, "-c", _IN_PROCESS], stdout=subprocess.PIPE, stderr=nowhere, check=True
        )
    for piece, microseconds in (orjson.loads(found.stdout) | on_sockets(options.rounds)).items():
        print(f"{piece:24} {microseconds:7.1f} µs")


# In a process of its own, because its log goes to stderr.
_IN_PROCESS = (
    "import asyncio, orjson, uvloop; from benchmarks import door_path; "
    "print(orjson.dumps(uvloop.run(door_path.pieces())).decode())"
)

if __name__ == "__main__":
    main()
