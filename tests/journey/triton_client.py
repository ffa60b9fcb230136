"""What a user of NVIDIA's client does, run as a program: its messages cannot live beside ours in one process.

Usage: triton_client.py HTTP_ADDRESS GRPC_ADDRESS MODEL, with the token in TOKEN; prints one JSON object.
"""

from __future__ import annotations

import json
import os
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


def without_token(http_address: str, grpc_address: str, model: str) -> list[str]:
    import tritonclient.grpc as grpc
    import tritonclient.http as http

    seen = []
    for client in (http.InferenceServerClient(http_address), grpc.InferenceServerClient(grpc_address)):
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
                "refused": without_token(http_address, grpc_address, model),
            }
        )
    )
