"""The commonest client of the Open Inference Protocol, unchanged, through both doors of a gateway."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np

from inference import grpc_service_pb2 as inference
from services.wire import errors
from tests.integration.gateway import running

PROGRAM = Path(__file__).with_name("triton_calls.py")


async def _double(request: Any, _: Any) -> inference.ModelInferResponse:
    if request.model_name == "nope":
        raise errors.ModelNotFound("there is no model nope")
    response = inference.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    for given, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        response.outputs.add(name=f"{given.name}_out", datatype=given.datatype, shape=given.shape)
        response.raw_output_contents.append((np.frombuffer(raw, "<f4") * 2).tobytes())
    return response


async def test_tritonclient_works_over_http_and_grpc() -> None:
    metadata = inference.ModelMetadataResponse(name="m", versions=["1"], platform="onnx")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    async with running() as gateway:
        gateway.upstreams.answer("ModelInfer", _double)
        gateway.upstreams.answer("ServerLive", inference.ServerLiveResponse(live=True))
        gateway.upstreams.answer("ServerReady", inference.ServerReadyResponse(ready=True))
        gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=True))
        gateway.upstreams.answer("ServerMetadata", inference.ServerMetadataResponse(name="stellwerk", version="1"))
        gateway.upstreams.answer("ModelMetadata", metadata)
        token = gateway.bearer()["authorization"].removeprefix("Bearer ")

        program = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            f"127.0.0.1:{gateway.http_port}",
            gateway.grpc_address,
            token,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(program.communicate(), 60)

    assert program.returncode == 0, said.decode()
    assert {call.request.model_name for call in gateway.upstreams.calls if call.method.endswith("/ModelInfer")} == {
        "team:m",
        "nope",
    }
