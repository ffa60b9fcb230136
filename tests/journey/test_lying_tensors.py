"""Tensors that lie are their sender's mistake: refused with INVALID_ARGUMENT, and the runtime has
not felt a thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from stellwerk.inference.v2 import grpc_service_pb2_grpc as oip_stubs
from tests.journey import lies
from tests.journey.stack import Platform

PATH = f"/v2/models/{lies.MODEL}/infer"


@pytest.fixture(scope="module")
def stub(platform: Platform) -> Iterator[Any]:
    with grpc.insecure_channel(platform.grpc) as channel:
        yield oip_stubs.GRPCInferenceServiceStub(channel)


@pytest.fixture
def unmoved(platform: Platform, carrier: str, stub: Any) -> Iterator[None]:
    """Around a lie: every process is the same afterwards, and the next honest call is answered."""
    before = platform.pids()
    yield
    status, answer = platform.call("POST", PATH, lies.plain())
    assert (status, answer["outputs"][0]["data"], answer["outputs"][1]["data"]) == (
        200,
        [1, 2],
        ["a"],
    )
    assert (
        stub.ModelInfer(lies.raw(), metadata=bearer(platform), timeout=20).raw_output_contents[1]
        == b"\1\0\0\0a"
    )
    assert platform.pids() == before


def bearer(platform: Platform) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {platform.token}"),)


@pytest.mark.parametrize("lie", lies.over_grpc())
@pytest.mark.usefixtures("unmoved")
def test_lies_over_grpc(platform: Platform, stub: Any, lie: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(lies.over_grpc()[lie], metadata=bearer(platform), timeout=20)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    assert 0 < len(caught.value.details()) < 2000


@pytest.mark.parametrize("lie", lies.over_rest())
@pytest.mark.usefixtures("unmoved")
def test_lies_in_json(platform: Platform, lie: str) -> None:
    status, _, data = platform.raw("POST", PATH, lies.over_rest()[lie])

    assert status == 400, data[:500]
    assert 0 < len(json.loads(data)["error"]) < 2000


@pytest.mark.parametrize("lie", lies.over_binary())
@pytest.mark.usefixtures("unmoved")
def test_lies_in_binary_data(platform: Platform, lie: str) -> None:
    request = lies.over_binary()[lie]
    head = str(int.from_bytes(request[:8], "big"))

    status, _, data = platform.raw("POST", PATH, request[8:], Inference_Header_Content_Length=head)

    assert status == 400, data[:500]
    assert 0 < len(json.loads(data)["error"]) < 2000


@pytest.mark.parametrize("make", [lies.typed, lies.raw])
def test_the_truth_is_answered(platform: Platform, carrier: str, stub: Any, make: Any) -> None:
    answer = stub.ModelInfer(make(), metadata=bearer(platform), timeout=20)

    assert list(answer.raw_output_contents) == list(lies.raw().raw_input_contents)


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\x12\xff\xff\xff\xff\x0f", b"{}"])
@pytest.mark.usefixtures("unmoved")
def test_what_is_no_message_at_all(platform: Platform, data: bytes) -> None:
    with grpc.insecure_channel(platform.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
            data, metadata=bearer(platform), timeout=20
        )

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
