"""What a user of NVIDIA's client does, run as a program: its messages cannot live beside ours in
one process.

Usage: triton_client.py HTTP_ADDRESS GRPC_ADDRESS MODEL, with the token in TOKEN; prints one JSON
object.
"""

from __future__ import annotations

import json
import os
import queue
import sys
from typing import Any

import numpy as np

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])


def over_http(address: str, model: str, headers: dict[str, str]) -> dict[str, Any]:
    import tritonclient.http as http

    client = http.InferenceServerClient(address)
    given = http.InferInput("X", [2, 4], "FP64")
    given.set_data_from_numpy(ROWS, binary_data=False)
    wanted = http.InferRequestedOutput("predict", binary_data=False)
    answer = client.infer(model, [given], outputs=[wanted], headers=headers, request_id="7")
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model, headers=headers),
        "unknown_ready": client.is_model_ready("nobody", headers=headers),
        "server": client.get_server_metadata(headers=headers)["name"],
        "model": client.get_model_metadata(model, headers=headers),
        "prediction": answer.as_numpy("predict").tolist(),
        "id": answer.get_response()["id"],
        "version": answer.get_response()["model_version"],
    }


def over_grpc(address: str, model: str, headers: dict[str, str]) -> dict[str, Any]:
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(address)
    given = grpc.InferInput("X", [2, 4], "FP64")
    given.set_data_from_numpy(ROWS)
    answer = client.infer(model, [given], headers=headers, request_id="7")
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model, headers=headers),
        "unknown_ready": client.is_model_ready("nobody", headers=headers),
        "server": client.get_server_metadata(headers=headers).name,
        "model": client.get_model_metadata(model, headers=headers, as_json=True),
        "prediction": answer.as_numpy("predict").tolist(),
        "id": answer.get_response().id,
        "version": answer.get_response().model_version,
    }


def binary_over_http(address: str, model: str, headers: dict[str, str]) -> dict[str, Any]:
    """The client's own defaults: inputs and outputs in binary; and its way of asking in the
    background.
    """
    import tritonclient.http as http

    client = http.InferenceServerClient(address, concurrency=4)
    given = http.InferInput("X", [2, 4], "FP64").set_data_from_numpy(ROWS)
    # Copies, since the client writes into the headers it is given.
    compressed = client.infer(
        model,
        [given],
        headers=dict(headers),
        request_compression_algorithm="gzip",
        response_compression_algorithm="deflate",
    )
    pending = [client.async_infer(model, [given], headers=dict(headers)) for _ in range(8)]
    return {
        "plain": client.infer(model, [given], headers=dict(headers)).as_numpy("predict").tolist(),
        "compressed": compressed.as_numpy("predict").tolist(),
        "async": [one.get_result().as_numpy("predict").tolist() for one in pending],
    }


def many_over_grpc(address: str, model: str, headers: dict[str, str]) -> dict[str, Any]:
    """Asking in the background, and over one stream, on which an error ends nothing."""
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(address)
    given = grpc.InferInput("X", [2, 4], "FP64").set_data_from_numpy(ROWS)
    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(8):
        client.async_infer(
            model, [given], lambda result, error: arrived.put((result, error)), headers=headers
        )
    in_background = [arrived.get(timeout=30) for _ in range(8)]

    client.start_stream(lambda result, error: arrived.put((result, error)), headers=headers)
    for number in range(6):
        client.async_stream_infer(
            "nobody" if number == 2 else model, [given], request_id=str(number)
        )
    on_stream = [arrived.get(timeout=30) for _ in range(6)]
    client.stop_stream()
    answered = [result for result, error in on_stream if error is None]
    return {
        "async": [result.as_numpy("predict").tolist() for result, _ in in_background],
        "stream": {
            result.get_response().id: result.as_numpy("predict").tolist() for result in answered
        },
        "final": [
            result.get_response().parameters["triton_final_response"].bool_param
            for result in answered
        ],
        "stream_errors": [str(error) for _, error in on_stream if error is not None],
    }


def without_token(http_address: str, grpc_address: str, model: str) -> list[str]:
    import tritonclient.grpc as grpc
    import tritonclient.http as http

    seen = []
    for client in (
        http.InferenceServerClient(http_address),
        grpc.InferenceServerClient(grpc_address),
    ):
        try:
            client.get_model_metadata(model)
        except Exception as exc:
            seen.append(str(exc))
    return seen


if __name__ == "__main__":
    http_address, grpc_address, model = sys.argv[1:]
    headers = {"authorization": "Bearer " + os.environ["TOKEN"]}
    print(
        json.dumps(
            {
                "http": over_http(http_address, model, headers),
                "grpc": over_grpc(grpc_address, model, headers),
                "http_defaults": binary_over_http(http_address, model, headers),
                "grpc_many": many_over_grpc(grpc_address, model, headers),
                "refused": without_token(http_address, grpc_address, model),
            }
        )
    )
