"""What a user of tritonclient does, as a program of its own: `python triton_calls.py HTTP GRPC
TOKEN`.

It cannot share a process with our stubs: both bring the protocol's messages, and protobuf takes
them only once.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

ROW = np.array([[1.5, 2.25]], np.float32)
WORDS = np.array([b"a", b"\xff"], object)
LARGE = np.zeros((300, 100), np.float32)


def given(module: Any, name: str, array: Any, datatype: str = "FP32", **form: bool) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **form)
    return tensor


def ask(module: Any, client: Any, headers: dict[str, str], **form: bool) -> None:
    assert client.is_server_live(headers=dict(headers))
    assert client.is_server_ready(headers=dict(headers))
    assert client.is_model_ready("m", headers=dict(headers))
    row = given(module, "x", ROW, **form)
    wanted = module.InferRequestedOutput("x_out", **form)
    result = client.infer(
        "team:m", [row], "prod", outputs=[wanted], request_id="7", headers=dict(headers)
    )
    assert result.as_numpy("x_out").tolist() == [[3.0, 4.5]]
    try:
        client.infer("nope", [row], outputs=[wanted], headers=dict(headers))
    except InferenceServerException as error:
        assert "there is no model nope" in str(error), error
    else:
        raise AssertionError("an unknown model was answered")


def ask_as_clients_do_by_default(client: Any, headers: dict[str, str]) -> None:
    """Binary data both ways, without a word of outputs; mixed with JSON; compressed either way."""
    module = tritonclient.http
    inputs = [
        given(module, "x", ROW),
        given(module, "w", WORDS, "BYTES"),
        given(module, "j", ROW, binary_data=False),
    ]
    result = client.infer("team:m", inputs, headers=dict(headers), priority=1, timeout=5_000_000)
    assert result.as_numpy("x_out").tolist() == [[3.0, 4.5]]
    assert result.as_numpy("w_out").tolist() == WORDS.tolist()
    assert result.get_output("j_out")["parameters"]["binary_data_size"] == 8
    outputs = [
        module.InferRequestedOutput("x_out"),
        module.InferRequestedOutput("j_out", binary_data=False),
    ]
    mixed = client.infer("team:m", inputs, outputs=outputs, headers=dict(headers))
    assert [mixed.as_numpy(name).tolist() for name in ("x_out", "j_out")] == [[[3.0, 4.5]]] * 2
    classes = module.InferRequestedOutput("x_out", class_count=1)
    assert client.infer("team:m", inputs, outputs=[classes], headers=dict(headers)).as_numpy(
        "x_out"
    ).tolist() == [[b"4.500000:1"]]
    for packing in ("gzip", "deflate"):
        result = client.infer(
            "team:m",
            [given(module, "x", LARGE)],
            headers=dict(headers),
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert result.get_response()["outputs"][0]["shape"] == [300, 100]
        assert not result.as_numpy("x_out").any()
    raw = client.async_infer("team:m", inputs, headers=dict(headers)).get_result()
    assert raw.as_numpy("x_out").tolist() == [[3.0, 4.5]]


def stream(client: Any, headers: dict[str, str]) -> None:
    """Three answers to one request, and an error that does not end the stream."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result), headers=dict(headers))
    row = given(tritonclient.grpc, "x", ROW)
    client.async_stream_infer("nope", [row])
    assert "there is no model nope" in str(answers.get(timeout=10))
    client.async_stream_infer("three", [row], enable_empty_final_response=True)
    got = [answers.get(timeout=10) for _ in range(4)]
    client.stop_stream()
    assert [result.as_numpy("y").tolist() for result in got[:3]] == [[0], [1], [2]]
    finals = [
        result.get_response().parameters["triton_final_response"].bool_param for result in got
    ]
    assert finals == [False, False, False, True]


async def ask_at_once(http: str, grpc: str, headers: dict[str, str]) -> None:
    async with tritonclient.http.aio.InferenceServerClient(http) as client:
        rows = [given(tritonclient.http, "x", ROW * n) for n in range(20)]
        results = await asyncio.gather(
            *(client.infer("team:m", [row], headers=dict(headers)) for row in rows)
        )
        assert [result.as_numpy("x_out").tolist() for result in results] == [
            (ROW * 2 * n).tolist() for n in range(20)
        ]
    async with tritonclient.grpc.aio.InferenceServerClient(grpc) as client:
        rows = [given(tritonclient.grpc, "x", ROW * n) for n in range(20)]
        results = await asyncio.gather(
            *(client.infer("team:m", [row], headers=dict(headers)) for row in rows)
        )
        assert [result.as_numpy("x_out").tolist() for result in results] == [
            (ROW * 2 * n).tolist() for n in range(20)
        ]


def main(http: str, grpc: str, token: str) -> None:
    # Always given as a copy: the client writes headers of its own into it.
    headers = {"authorization": f"Bearer {token}"}
    with tritonclient.http.InferenceServerClient(http) as client:
        assert client.get_server_metadata(headers=dict(headers))["name"] == "stellwerk"
        assert client.get_model_metadata("m", headers=dict(headers))["inputs"][0]["shape"] == [
            -1,
            2,
        ]
        ask(tritonclient.http, client, headers, binary_data=False)
        ask(tritonclient.http, client, headers)
        ask_as_clients_do_by_default(client, headers)
    with tritonclient.grpc.InferenceServerClient(grpc) as client:
        assert client.get_server_metadata(headers=dict(headers)).name == "stellwerk"
        assert client.get_model_metadata("m", headers=dict(headers)).inputs[0].shape == [-1, 2]
        ask(tritonclient.grpc, client, headers)
        stream(client, headers)
    asyncio.run(ask_at_once(http, grpc, headers))


if __name__ == "__main__":
    main(*sys.argv[1:])
