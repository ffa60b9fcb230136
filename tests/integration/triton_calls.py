"""What a user of tritonclient does, as a program of its own: `python triton_calls.py HTTP GRPC TOKEN`.

It cannot share a process with our stubs: both bring the protocol's messages, and protobuf takes them only once.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException


def ask(module: Any, client: Any, headers: dict[str, str], **binary: bool) -> None:
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("m", headers=headers)
    given = module.InferInput("x", [1, 2], "FP32")
    given.set_data_from_numpy(np.array([[1.5, 2.25]], np.float32), **binary)
    wanted = module.InferRequestedOutput("x_out", **binary)
    result = client.infer("team:m", [given], "prod", outputs=[wanted], request_id="7", headers=headers)
    assert result.as_numpy("x_out").tolist() == [[3.0, 4.5]]
    try:
        client.infer("nope", [given], outputs=[wanted], headers=headers)
    except InferenceServerException as error:
        assert "there is no model nope" in str(error), error
    else:
        raise AssertionError("an unknown model was answered")


def main(http: str, grpc: str, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    with tritonclient.http.InferenceServerClient(http) as client:
        assert client.get_server_metadata(headers=headers)["name"] == "stellwerk"
        assert client.get_model_metadata("m", headers=headers)["inputs"][0]["shape"] == [-1, 2]
        ask(tritonclient.http, client, headers, binary_data=False)
    with tritonclient.grpc.InferenceServerClient(grpc) as client:
        assert client.get_server_metadata(headers=headers).name == "stellwerk"
        assert client.get_model_metadata("m", headers=headers).inputs[0].shape == [-1, 2]
        ask(tritonclient.grpc, client, headers)


if __name__ == "__main__":
    main(*sys.argv[1:])
