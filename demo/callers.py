"""Calls a model in each way that an application can: SDK, REST and gRPC.

Each function sends the held-out rows and returns their scores, one row of the array for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np

from demo.models import Array, Trained
from demo.platform import Running
from stellwerk.client import connect
from stellwerk.inference.v2 import grpc_service_pb2 as inference_pb
from stellwerk.inference.v2 import grpc_service_pb2_grpc as inference_grpc
from stellwerk.router.v1 import router_service_pb2 as router_pb
from stellwerk.router.v1 import router_service_pb2_grpc as router_grpc
from stellwerk.type.v1 import tensor_pb2

Call = Callable[[Running, Trained], Array]
_TYPES = {"float32": "FP32", "float64": "FP64"}
_DTYPES = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
# Seconds: the first call of a model waits until a runtime has loaded it.
_TIMEOUT = 60.0


def bearer(running: Running) -> dict[str, str]:
    """Returns the HTTP headers that sign in."""
    return {"Authorization": f"Bearer {running.token}"}


def sdk_http(running: Running, trained: Trained) -> Array:
    """Calls by stellwerk.client over HTTP."""
    return _sdk(running.http, running, trained)


def sdk_grpc(running: Running, trained: Trained) -> Array:
    """Calls by stellwerk.client over gRPC."""
    return _sdk(f"grpc://{running.grpc}", running, trained)


def _sdk(url: str, running: Running, trained: Trained) -> Array:
    with connect(url, running.token, timeout=_TIMEOUT) as platform:
        model = platform.runtime.model(trained.name)
        answer = model.call(trained.rows, method=trained.method, outputs=[trained.output])
    return np.asarray(answer.value)


def rest_native(running: Running, trained: Trained) -> Array:
    """Calls by POST /v1/…:predict with plain rows."""
    body = {
        "method": trained.method,
        "instances": trained.rows.tolist(),
        "outputNames": [trained.output],
    }
    url = f"{running.http}/v1/buckets/default/models/{trained.name}:predict"
    answer = (
        httpx.post(url, json=body, headers=bearer(running), timeout=_TIMEOUT)
        .raise_for_status()
        .json()
    )
    return np.array(answer["predictions"])


def rest_inference(running: Running, trained: Trained) -> Array:
    """Calls by POST /v2/models/…/infer of the Open Inference Protocol."""
    body = {
        "parameters": {"method": trained.method},
        "inputs": [
            {
                "name": trained.input,
                "datatype": _TYPES[trained.rows.dtype.name],
                "shape": list(trained.rows.shape),
                "data": trained.rows.ravel().tolist(),
            }
        ],
        "outputs": [{"name": trained.output}],
    }
    url = f"{running.http}/v2/models/{trained.name}/infer"
    answer = (
        httpx.post(url, json=body, headers=bearer(running), timeout=_TIMEOUT)
        .raise_for_status()
        .json()
    )
    output = answer["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])


def grpc_native(running: Running, trained: Trained) -> Array:
    """Calls by stellwerk.router.v1.RouterService/Predict with the generated stubs."""
    tensor = tensor_pb2.Tensor(
        name=trained.input,
        datatype=_TYPES[trained.rows.dtype.name],
        shape=trained.rows.shape,
        data=np.ascontiguousarray(trained.rows).tobytes(),
    )
    request = router_pb.PredictRequest(
        name=f"buckets/default/models/{trained.name}",
        method=trained.method,
        inputs=[tensor],
        output_names=[trained.output],
    )
    with grpc.insecure_channel(running.grpc) as channel:
        stub: Any = router_grpc.RouterServiceStub(channel)
        answer = stub.Predict(request, timeout=_TIMEOUT, metadata=_metadata(running))
    output = answer.outputs[0]
    return np.frombuffer(output.data, _DTYPES[output.datatype]).reshape(tuple(output.shape))


def grpc_inference(running: Running, trained: Trained) -> Array:
    """Calls by inference.GRPCInferenceService/ModelInfer of the Open Inference Protocol."""
    request = inference_pb.ModelInferRequest(model_name=trained.name)
    request.parameters["method"].string_param = trained.method
    request.inputs.add(
        name=trained.input, datatype=_TYPES[trained.rows.dtype.name], shape=trained.rows.shape
    )
    request.raw_input_contents.append(np.ascontiguousarray(trained.rows).tobytes())
    request.outputs.add(name=trained.output)
    with grpc.insecure_channel(running.grpc) as channel:
        stub: Any = inference_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=_TIMEOUT, metadata=_metadata(running))
    output = answer.outputs[0]
    return np.frombuffer(answer.raw_output_contents[0], _DTYPES[output.datatype]).reshape(
        tuple(output.shape)
    )


CALLS: dict[str, Call] = {
    "SDK, HTTP": sdk_http,
    "SDK, gRPC": sdk_grpc,
    "REST /v1 :predict": rest_native,
    "REST /v2 infer": rest_inference,
    "gRPC Predict": grpc_native,
    "gRPC ModelInfer": grpc_inference,
}


def _metadata(running: Running) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {running.token}")]
