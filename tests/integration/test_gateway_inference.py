"""The Open Inference Protocol over REST, through a running gateway."""

from __future__ import annotations

import numpy as np

from inference import grpc_service_pb2 as inference
from tests.integration.gateway import Gateway


async def test_a_prediction_in_the_inference_protocol(gateway: Gateway) -> None:
    response = inference.ModelInferResponse(model_name="iris", model_version="2", id="7")
    response.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    response.raw_output_contents.append(np.array([1.1, 0.5], "<f4").tobytes())
    gateway.upstreams.answer("ModelInfer", response)
    body = {"id": "7", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[1, 2.5]]}]}

    answer = await gateway.http.post("/v2/models/team%3Airis/versions/2/infer", json=body, headers=gateway.bearer())

    request = gateway.upstreams.last("ModelInfer").request
    assert (request.model_name, request.model_version) == ("team:iris", "2")
    assert np.frombuffer(request.raw_input_contents[0], "<f8").tolist() == [1.0, 2.5]
    assert answer.text == (
        '{"model_name":"iris","model_version":"2","id":"7",'
        '"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1.1,0.5]}]}'
    )


async def test_the_inference_protocols_descriptions(gateway: Gateway) -> None:
    metadata = inference.ModelMetadataResponse(name="iris", versions=["1"], platform="onnx")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    gateway.upstreams.answer("ModelMetadata", metadata)
    gateway.upstreams.answer("ServerMetadata", inference.ServerMetadataResponse(name="stellwerk", version="1"))
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
