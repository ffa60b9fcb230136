"""Text generation and streams of replies over REST, through a running gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import errors, tensors
from tests.integration.gateway import Gateway

ROW = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}


def texts(*words: str, end: errors.ServiceError | None = None) -> Any:
    """A model that answers each word alone, then the end."""

    async def script(_call: Any, _: Any) -> Any:
        for word in words:
            yield work_pb2.WorkReply(
                outputs=[tensors.from_numpy("text_output", np.array([word]))], more=True
            )
        yield end or work_pb2.WorkReply()

    return script


def _events(text: str) -> list[Any]:
    assert text.endswith("\n\n") or not text
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]


def _metadata(*inputs: tuple[str, str, list[int]]) -> inference.ModelMetadataResponse:
    metadata = inference.ModelMetadataResponse(name="m", versions=["1"], platform="onnx")
    for name, datatype, shape in inputs:
        metadata.inputs.add(name=name, datatype=datatype, shape=shape)
    return metadata


async def test_generate_is_plain_json_both_ways(gateway: Gateway) -> None:
    gateway.upstreams.answer(
        "ModelMetadata", _metadata(("text_input", "BYTES", [-1, 1]), ("n", "INT32", [-1, 1]))
    )
    gateway.upstreams.answer("Call", texts("hello"))
    body = {
        "id": "7",
        "text_input": "hi",
        "n": 3,
        "parameters": {"priority": 1},
        "temperature": 0.5,
    }

    answer = await gateway.http.post(
        "/v2/models/llm/versions/3/generate", json=body, headers=gateway.bearer()
    )

    work = gateway.upstreams.last("Call").request.work
    assert answer.json() == {
        "id": "7",
        "model_name": "llm",
        "model_version": "3",
        "text_output": "hello",
    }
    assert [(t.name, list(t.shape)) for t in work.inputs] == [("text_input", [1, 1]), ("n", [1, 1])]
    assert work.priority == 1


async def test_generate_is_refused_by_a_model_that_gives_several_answers(gateway: Gateway) -> None:
    gateway.upstreams.answer("ModelMetadata", _metadata())
    gateway.upstreams.answer("Call", texts("a", "b"))

    answer = await gateway.http.post("/v2/models/llm/generate", json={}, headers=gateway.bearer())

    assert answer.status_code == 501
    assert "generate_stream" in answer.json()["error"]


async def test_generate_stream_gives_an_event_for_each_answer(gateway: Gateway) -> None:
    gateway.upstreams.answer("ModelMetadata", _metadata(("text_input", "BYTES", [-1])))
    gateway.upstreams.answer("Call", texts("a", "b"))

    answer = await gateway.http.post(
        "/v2/models/llm/generate_stream", json={"text_input": "x"}, headers=gateway.bearer()
    )

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["text_output"] for event in _events(answer.text)] == ["a", "b"]
    assert gateway.upstreams.last("Call").request.work.stream


async def test_infer_stream_gives_an_answer_of_the_protocol_in_each_event(gateway: Gateway) -> None:
    gateway.upstreams.answer("Call", texts("a", "b"))
    body = {"id": "7", "inputs": [ROW], "parameters": {"triton_enable_empty_final_response": True}}

    told = await gateway.http.post(
        "/v2/models/llm/infer_stream", json=body, headers=gateway.bearer()
    )
    untold = await gateway.http.post(
        "/v2/models/llm/infer_stream", json={"inputs": [ROW]}, headers=gateway.bearer()
    )

    events = _events(told.text)
    assert [event["parameters"]["triton_final_response"] for event in events] == [
        False,
        False,
        True,
    ]
    assert [event["outputs"][0]["data"] for event in events[:2]] == [["a"], ["b"]]
    assert {event["id"] for event in events} == {"7"}
    assert len(_events(untold.text)) == 2


async def test_an_error_after_the_first_answer_is_an_event(gateway: Gateway) -> None:
    gateway.upstreams.answer("ModelMetadata", _metadata())
    gateway.upstreams.answer("Call", texts("a", end=errors.ModelFailed("it broke")))

    answer = await gateway.http.post(
        "/v2/models/llm/generate_stream", json={}, headers=gateway.bearer()
    )

    events = _events(answer.text)
    assert answer.status_code == 200
    assert [event.get("text_output") for event in events] == ["a", None]
    assert events[-1] == {"error": "it broke"}


async def test_each_event_is_sent_at_once(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(_call: Any, _: Any) -> Any:
        yield work_pb2.WorkReply(outputs=[tensors.from_numpy("y", np.array([1]))], more=True)
        await go_on.wait()
        yield work_pb2.WorkReply()

    gateway.upstreams.answer("Call", script)
    async with gateway.http.stream(
        "POST", "/v2/models/m/infer_stream", json={"inputs": [ROW]}, headers=gateway.bearer()
    ) as answer:
        pieces = answer.aiter_text()
        piece = await asyncio.wait_for(anext(pieces), 5)
        go_on.set()
        rest = [piece async for piece in pieces]

    assert _events(piece)[0]["outputs"][0]["data"] == [1]
    assert rest == []
