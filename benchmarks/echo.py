"""The bare minimum of a gRPC round trip: grpc.aio with uvloop answering ModelInfer with what it was
sent.

As a program it serves until it is ended and prints its port; as a module it starts that program as
a system.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import grpc
import uvloop

from benchmarks.measurement import GrpcCall
from benchmarks.processes import Child
from stellwerk.inference.v2 import grpc_service_pb2 as pb
from stellwerk.inference.v2 import grpc_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[pb.ModelInferRequest, pb.ModelInferResponse]"


class Echo(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with the inputs as outputs."""

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: _Context
    ) -> pb.ModelInferResponse:
        """One output per input, its bytes untouched."""
        answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        for tensor in request.inputs:
            answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        answer.raw_output_contents.extend(request.raw_input_contents)
        return answer


class EchoServer:
    """The echo as a system under test, in a process of its own."""

    name = "grpc.aio echo"

    def __init__(self) -> None:
        self.versions: Mapping[str, str] = {"grpcio": grpc.__version__, "uvloop": version("uvloop")}
        self._directory = tempfile.TemporaryDirectory()
        self._child = Child(
            [sys.executable, "-m", "benchmarks.echo"],
            Path(self._directory.name) / "log",
            speaks=True,
        )
        self.address = f"127.0.0.1:{int(self._child.first_line())}"

    def call(self, request: bytes) -> GrpcCall:
        """A call of this server."""
        return GrpcCall(self.address, request, {})

    def parts(self) -> Mapping[str, Sequence[int]]:
        """All of its processes."""
        return {self.name: self._child.pids()}

    def stop(self) -> None:
        self._child.stop()
        self._directory.cleanup()


async def _serve() -> None:
    server = grpc.aio.server()
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
