"""Predictions over REST through a running gateway: as JSON, as binary data, as plain objects and in
parts.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2
from stellwerk.wire import errors, tensors
from tests.integration.gateway import Gateway, wait_for

INFER = "/v2/models/m/infer"
ROW = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}


async def _double(call: call_service_pb2.Call, _: Any) -> work_pb2.WorkReply:
    """Every input, twice as much, as an output of the same shape."""
    outputs = [
        tensors.from_numpy(f"{t.name}_out", tensors.to_numpy(t) * 2) for t in call.work.inputs
    ]
    return work_pb2.WorkReply(outputs=outputs)


def _metadata(*inputs: tuple[str, str, list[int]]) -> inference.ModelMetadataResponse:
    metadata = inference.ModelMetadataResponse(name="m", versions=["1"], platform="onnx")
    for name, datatype, shape in inputs:
        metadata.inputs.add(name=name, datatype=datatype, shape=shape)
    return metadata


async def test_a_prediction_in_the_inference_protocol(gateway: Gateway) -> None:
    outputs = [tensors.from_numpy("y", np.array([[1.1, 0.5]], "<f4"))]
    gateway.upstreams.answer("Call", work_pb2.WorkReply(outputs=outputs))
    body = {
        "id": "7",
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[1, 2.5]]}],
    }

    answer = await gateway.http.post(
        "/v2/models/team%3Airis/versions/2/infer", json=body, headers=gateway.bearer()
    )

    call = gateway.upstreams.last("Call")
    assert (call.request.model, call.request.version, call.request.work.method) == (
        "team:iris",
        "2",
        "predict",
    )
    assert np.frombuffer(call.request.work.inputs[0].data, "<f8").tolist() == [1.0, 2.5]
    assert call.metadata["x-request-id"] == answer.headers["x-request-id"]
    assert (
        answer.text == '{"model_name":"team:iris","model_version":"3","id":"7",'
        '"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1.1,0.5]}]}'
    )


async def test_the_inference_protocols_descriptions(gateway: Gateway) -> None:
    gateway.upstreams.answer("ModelMetadata", _metadata(("x", "FP32", [-1, 4])))
    gateway.upstreams.answer(
        "ServerMetadata", inference.ServerMetadataResponse(name="stellwerk", version="1")
    )
    gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=True))
    headers = gateway.bearer()

    model = await gateway.http.get("/v2/models/iris", headers=headers)
    ready = await gateway.http.get("/v2/models/iris/versions/1/ready", headers=headers)
    gateway.upstreams.answer("ModelReady", inference.ModelReadyResponse(ready=False))
    not_ready = await gateway.http.get("/v2/models/nope/ready", headers=headers)

    assert model.json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    for path in ("/v2", "/v2/"):
        assert (await gateway.http.get(path, headers=headers)).json()["name"] == "stellwerk"
    assert (ready.status_code, ready.json()) == (200, {"name": "iris", "ready": True})
    assert (not_ready.status_code, not_ready.json()["ready"]) == (404, False)


def binary(**request: Any) -> tuple[bytes, dict[str, str]]:
    """A request with one row as binary data, and its header."""
    data = np.array([[1.5, 2.25]], "<f4").tobytes()
    one = {
        "name": "x",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    text = json.dumps({"inputs": [one], **request}).encode()
    return text + data, {"inference-header-content-length": str(len(text))}


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_binary_data_both_ways(gateway: Gateway, encoding: str) -> None:
    gateway.upstreams.answer("Call", _double)
    body, header = binary(id="7", parameters={"binary_data_output": True})
    packed = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)

    answer = await gateway.http.post(
        INFER, content=packed, headers={**gateway.bearer(), **header, "content-encoding": encoding}
    )

    size = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:size])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert described["outputs"] == [
        {
            "name": "x_out",
            "shape": [1, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 8},
        }
    ]
    assert np.frombuffer(answer.content[size:], "<f4").tolist() == [3.0, 4.5]


async def test_an_outputs_own_form_goes_before_that_of_all(gateway: Gateway) -> None:
    gateway.upstreams.answer("Call", _double)
    outputs = [{"name": "x_out", "parameters": {"binary_data": False}}]
    body, header = binary(parameters={"binary_data_output": True}, outputs=outputs)

    answer = await gateway.http.post(INFER, content=body, headers={**gateway.bearer(), **header})

    assert answer.json()["outputs"][0]["data"] == [3.0, 4.5]
    assert list(gateway.upstreams.last("Call").request.work.outputs) == ["x_out"]


async def test_a_body_that_is_all_data_is_the_only_input(gateway: Gateway) -> None:
    gateway.upstreams.answer("Call", _double)
    gateway.upstreams.answer("ModelMetadata", _metadata(("x", "FP32", [-1, 2])))
    headers = {**gateway.bearer(), "inference-header-content-length": "0"}

    answer = await gateway.http.post(
        INFER, content=np.array([1.5, 2.25], "<f4").tobytes(), headers=headers
    )

    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[size:], "<f4").tolist() == [3.0, 4.5]
    assert list(gateway.upstreams.last("Call").request.work.inputs[0].shape) == [1, 2]


async def test_a_body_that_is_all_data_needs_a_model_of_one_input(gateway: Gateway) -> None:
    gateway.upstreams.answer("ModelMetadata", _metadata(("a", "FP32", [2]), ("b", "FP32", [2])))
    headers = {**gateway.bearer(), "inference-header-content-length": "0"}

    for body in (b"", b"01234567"):
        answer = await gateway.http.post("/v2/models/two/infer", content=body, headers=headers)

        assert answer.status_code == 400
        assert "has 2" in answer.json()["error"]


@pytest.mark.parametrize("header", ["-1", "x", "100000", ""])
async def test_a_header_that_lies_about_the_json_is_a_bad_request(
    gateway: Gateway, header: str
) -> None:
    body, _ = binary()

    answer = await gateway.http.post(
        INFER, content=body, headers={**gateway.bearer(), "inference-header-content-length": header}
    )

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not gateway.upstreams.calls


@pytest.mark.parametrize(
    ("asked", "given"), [("gzip", "gzip"), ("deflate", "deflate"), ("br, deflate, gzip", "gzip")]
)
async def test_large_answers_are_compressed_as_asked(
    gateway: Gateway, asked: str, given: str
) -> None:
    outputs = [tensors.from_numpy("y", np.zeros(5000, "<f4"))]
    gateway.upstreams.answer("Call", work_pb2.WorkReply(outputs=outputs))
    body, header = binary(parameters={"binary_data_output": True})

    answer = await gateway.http.post(
        INFER, content=body, headers={**gateway.bearer(), **header, "accept-encoding": asked}
    )

    size = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-encoding"] == given
    assert int(answer.headers["content-length"]) < 1000
    assert answer.content[size:] == bytes(20_000)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ModelNotFound("there is no such model"), 404),
        (errors.InvalidInput("input 'x' is missing"), 400),
        (errors.Overloaded("come back later", retry_after_ms=1500), 429),
        (errors.NotImplementedHere("call it over a stream"), 501),
        (errors.DeadlinePassed("too late"), 504),
    ],
)
async def test_an_error_of_a_call_has_its_status(
    gateway: Gateway, error: errors.ServiceError, status: int
) -> None:
    gateway.upstreams.answer("Call", error)
    gateway.upstreams.answer("ModelMetadata", _metadata())

    for path in ("infer", "generate", "infer_stream", "generate_stream"):
        body = {"inputs": [ROW]} if "infer" in path else {}
        answer = await gateway.http.post(
            f"/v2/models/m/{path}", json=body, headers=gateway.bearer()
        )

        assert (answer.status_code, answer.json()) == (status, {"error": error.message})
        assert answer.headers.get("retry-after") == ("2" if status == 429 else None)


@pytest.mark.parametrize("path", ["infer", "infer_stream", "generate", "generate_stream"])
async def test_a_caller_that_goes_away_cancels_its_prediction(gateway: Gateway, path: str) -> None:
    arrived = asyncio.Event()

    async def wait(_call: Any, _: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    gateway.upstreams.answer("ModelMetadata", _metadata())
    gateway.upstreams.answer("Call", wait)
    gateway.upstreams.cancelled.clear()
    body = {"inputs": [ROW]} if "infer" in path else {}
    asking = asyncio.create_task(
        gateway.http.post(f"/v2/models/m/{path}", json=body, headers=gateway.bearer())
    )
    await asyncio.wait_for(arrived.wait(), 5)

    asking.cancel()

    await wait_for(lambda: "/Call" in gateway.upstreams.cancelled)


async def test_a_timeout_of_the_request_is_kept(gateway: Gateway) -> None:
    async def wait(_call: Any, _: Any) -> None:
        await asyncio.Event().wait()

    gateway.upstreams.answer("Call", wait)
    body = {"inputs": [ROW], "parameters": {"timeout": 100_000}}

    answer = await asyncio.wait_for(
        gateway.http.post(INFER, json=body, headers=gateway.bearer()), 5
    )

    assert answer.status_code == 504
    assert (gateway.upstreams.last("Call").time_remaining or 9) <= 0.1


async def test_what_is_asked_at_once_on_one_connection_is_answered_in_order(
    gateway: Gateway,
) -> None:
    gateway.upstreams.answer("Call", _double)
    token = gateway.bearer()["authorization"]
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    for number in range(3):
        body = json.dumps({"id": str(number), "inputs": [ROW]})
        head = (
            f"POST {INFER} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length:"
            f" {len(body)}\r\n\r\n"
        )
        writer.write((head + body).encode())

    for number in range(3):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        assert json.loads(await reader.readexactly(int(length.partition(b":")[2])))["id"] == str(
            number
        )
    writer.close()


async def test_a_neighbour_that_goes_away_takes_nothing_from_others(gateway: Gateway) -> None:
    arrived, dropped, go_on = list[str](), list[str](), asyncio.Event()

    async def held(call: Any, context: Any) -> Any:
        arrived.append(call.request_id)
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            dropped.append(call.request_id)
            raise
        return await _double(call, context)

    gateway.upstreams.answer("Call", held)
    body, headers = {"inputs": [ROW]}, gateway.bearer()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as other:
        going = [
            asyncio.create_task(other.post(INFER, json=body, headers=headers)) for _ in range(5)
        ]
        staying = [
            asyncio.create_task(gateway.http.post(INFER, json=body, headers=headers))
            for _ in range(20)
        ]
        await wait_for(lambda: len(arrived) == 25)
        for task in going:
            task.cancel()
        await wait_for(lambda: len(dropped) == 5)
        go_on.set()
        answers = await asyncio.gather(*staying)

    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["outputs"][0]["data"] == [2.0, 5.0] for answer in answers)
