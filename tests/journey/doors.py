"""The two doors as clients that cost little and see everything: status, values, version, seconds,
when to come again.

Statuses are those of HTTP; what gRPC answers is translated by the gateway's own table, so that
tests can say the same of both doors.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from services.api_gateway.http.status import HTTP_STATUS
from stellwerk.inference.v2 import grpc_service_pb2 as oip
from stellwerk.inference.v2 import grpc_service_pb2_grpc as oip_stubs
from tests.journey.stack import Platform

Rows = Sequence[Sequence[float]]
# A client's own patience, far beyond what any test waits for.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What a caller heard, and after how many seconds."""

    status: int
    seconds: float
    values: list[float] = field(default_factory=list)
    version: str = ""
    message: str = ""
    # Seconds; 0 if nothing was said of it.
    retry_after: float = 0.0


class Door(Protocol):
    """One of the two ways in."""

    async def infer(
        self,
        model: str,
        rows: Rows,
        *,
        deadline: float | None = None,
        token: str = "",
        request_id: str = "",
        version: str = "",
        **parameters: Any,
    ) -> Answer:
        """Asks for FP64 rows of the input X. `deadline` is in seconds from now, None for none."""
        ...

    async def close(self) -> None: ...


@asynccontextmanager
async def door_of(platform: Platform, kind: str) -> AsyncIterator[Door]:
    """The platform's door of this kind, "rest" or "grpc"."""
    door: Door = RestDoor(platform) if kind == "rest" else GrpcDoor(platform)
    try:
        yield door
    finally:
        await door.close()


class GrpcDoor:
    """ModelInfer over one channel."""

    def __init__(self, platform: Platform) -> None:
        self._token = platform.token
        self.channel = grpc.aio.insecure_channel(
            platform.grpc, options=[("grpc.max_send_message_length", -1)]
        )
        self._stub = oip_stubs.GRPCInferenceServiceStub(self.channel)

    async def infer(
        self,
        model: str,
        rows: Rows,
        *,
        deadline: float | None = None,
        token: str = "",
        request_id: str = "",
        version: str = "",
        **parameters: Any,
    ) -> Answer:
        data = np.asarray(rows, "<f8")
        request = oip.ModelInferRequest(
            model_name=model, model_version=version, raw_input_contents=[data.tobytes()]
        )
        request.inputs.add(name="X", datatype="FP64", shape=data.shape)
        for name, value in parameters.items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
            setattr(request.parameters[name], kind, value)
        return await self.ask(request, deadline=deadline, token=token, request_id=request_id)

    async def ask(
        self,
        request: oip.ModelInferRequest,
        *,
        deadline: float | None = None,
        token: str = "",
        request_id: str = "",
    ) -> Answer:
        """Any request, as it is."""
        metadata = (
            ("authorization", f"Bearer {token or self._token}"),
            ("x-request-id", request_id),
        )
        began = time.perf_counter()
        try:
            answer = await self._stub.ModelInfer(request, metadata=metadata, timeout=deadline)
        except grpc.aio.AioRpcError as exc:
            status = HTTP_STATUS[exc.code()]
            return Answer(
                status,
                time.perf_counter() - began,
                message=exc.details() or "",
                retry_after=_retry_after(exc),
            )
        took = time.perf_counter() - began
        values = np.frombuffer(answer.raw_output_contents[0], "<f8").tolist()
        return Answer(200, took, values, answer.model_version)

    async def close(self) -> None:
        await self.channel.close()


def _retry_after(exc: grpc.aio.AioRpcError) -> float:
    found = error_details_pb2.RetryInfo()
    for key, value in exc.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(found)
    return float(found.retry_delay.ToMilliseconds()) / 1000


class RestDoor:
    """POST /v2/models/{model}/infer over as many connections as there are requests at once."""

    def __init__(self, platform: Platform) -> None:
        self._token, url = platform.token, urlsplit(platform.http)
        self._host, self._port = url.hostname, url.port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, count: int) -> None:
        """Opens `count` connections for later requests."""
        opened = [
            asyncio.open_connection(self._host, self._port, limit=1 << 24) for _ in range(count)
        ]
        self._idle += await asyncio.gather(*opened)

    async def infer(
        self,
        model: str,
        rows: Rows,
        *,
        deadline: float | None = None,
        token: str = "",
        request_id: str = "",
        version: str = "",
        **parameters: Any,
    ) -> Answer:
        shape = [len(rows), len(rows[0])]
        tensor = {
            "name": "X",
            "shape": shape,
            "datatype": "FP64",
            "data": [list(each) for each in rows],
        }
        body = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"X-Request-Id": request_id}
        if deadline is not None:
            headers["X-Request-Timeout"] = f"{deadline:.9f}"
        began = time.perf_counter()
        path = (
            f"/v2/models/{model}/versions/{version}/infer"
            if version
            else f"/v2/models/{model}/infer"
        )
        status, given, data = await self.post(path, body, token, headers)
        took = time.perf_counter() - began
        answer = json.loads(data)
        if status != 200:
            return Answer(
                status,
                took,
                message=answer["error"],
                retry_after=float(given.get("retry-after", 0)),
            )
        return Answer(200, took, answer["outputs"][0]["data"], answer["model_version"])

    async def post(
        self, path: str, body: bytes, token: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Any body: status, headers with lower-case names, body."""
        return await self._send("POST", path, body, token, headers)

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """As `post`, without a body."""
        return await self._send("GET", path, b"", "", None)

    async def _send(
        self, method: str, path: str, body: bytes, token: str, headers: dict[str, str] | None
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {token or self._token}",
        ]
        lines += [
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        if not self._idle:
            await self.connect(1)
        reader, writer = self._idle.pop()
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
                answer = await _read(reader)
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        return answer

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return (
        int(head[0].split()[1]),
        headers,
        await reader.readexactly(int(headers["content-length"])),
    )
