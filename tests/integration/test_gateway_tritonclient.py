"""The commonest client of the Open Inference Protocol, unchanged, through both doors of a
gateway.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import errors, tensors
from tests.integration.gateway import running

PROGRAM = Path(__file__).with_name("triton_calls.py")


async def _double(call: Any, _: Any) -> work_pb2.WorkReply:
    if call.model == "nope":
        raise errors.ModelNotFound("there is no model nope")
    outputs = []
    for given in call.work.inputs:
        array = tensors.to_numpy(given)
        outputs.append(
            tensors.from_numpy(f"{given.name}_out", array if array.dtype == object else array * 2)
        )
    return work_pb2.WorkReply(
        outputs=[
            output
            for output in outputs
            if output.name in call.work.outputs or not call.work.outputs
        ]
    )


async def _count(call: Any, context: Any) -> Any:
    """One answer to most models, three to the one that is named for it."""
    if call.model == "three":
        for number in range(3):
            yield work_pb2.WorkReply(
                outputs=[tensors.from_numpy("y", np.array([number]))], more=True
            )
        yield work_pb2.WorkReply()
    else:
        yield await _double(call, context)


async def test_tritonclient_works_over_http_and_grpc() -> None:
    metadata = inference.ModelMetadataResponse(name="m", versions=["1"], platform="onnx")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    async with running() as gateway:
        gateway.upstreams.answer("Call", _count)
        gateway.upstreams.answer("ServerLive", inference.ServerLiveResponse(live=True))
        gateway.upstreams.answer("ServerReady", inference.ServerReadyResponse(ready=True))
        gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=True))
        gateway.upstreams.answer(
            "ServerMetadata", inference.ServerMetadataResponse(name="stellwerk", version="1")
        )
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
    asked = {call.request.model for call in gateway.upstreams.calls if call.method == "/Call"}
    assert asked == {"team:m", "nope", "three"}
