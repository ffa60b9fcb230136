"""Messages of too many parts are told from those of many bytes, before they are parsed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.grpc_door import message_limits
from services.api_gateway.grpc_door.message_limits import COUNTED_FROM_BYTES, MOST_FIELDS
from stellwerk.inference.v2 import grpc_service_pb2 as oip
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.wire.errors import TooLarge

REQUEST = oip.ModelInferRequest
EMPTY_INPUT, EMPTY_OUTPUT = b"\x2a\x00", b"\x32\x00"


def tensors(count: int, **contents: Any) -> oip.ModelInferRequest:
    request = REQUEST(model_name="m")
    for number in range(count):
        request.inputs.add(
            name=f"x{number}", datatype="FP32", shape=[1, 2], contents=contents or None
        )
    return request


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST(raw_input_contents=[bytes(8_000_000)]),
        REQUEST(raw_input_contents=[bytes(10_000)] * 1000),
        tensors(1, fp32_contents=[1.0] * 1_000_000),
        tensors(1, int64_contents=[1] * 4_000_000),
        tensors(1, bytes_contents=[b"word"] * 100_000),
        tensors(5000, bytes_contents=[b"word" * 10]),
    ],
)
def test_what_is_large_for_its_tensors_passes(request_: oip.ModelInferRequest) -> None:
    data = request_.SerializeToString()
    assert len(data) >= COUNTED_FROM_BYTES

    message_limits.check(data, REQUEST.DESCRIPTOR)


@pytest.mark.parametrize(
    "data",
    [
        EMPTY_INPUT * (MOST_FIELDS + 1),
        EMPTY_OUTPUT * (4 * MOST_FIELDS),
        # A group is no way around it, nor is a field that is not known.
        b"\x0b\x0c" + EMPTY_INPUT * (MOST_FIELDS + 1),
        b"\xf8\x7f\x01" * (MOST_FIELDS + 1),
        # Parts of an input, and entries of a map.
        tensors(1, bytes_contents=[b""] * (MOST_FIELDS + 1)).SerializeToString(),
        b"".join(b"\x22\x07\x0a\x05%05x" % number for number in range(MOST_FIELDS)),
    ],
)
def test_what_is_large_for_its_parts_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge, match="fields"):
        message_limits.check(data, REQUEST.DESCRIPTOR)


def test_parts_are_counted_on_every_level() -> None:
    request = router.PredictRequest(name="buckets/b/models/m")
    rows = request.instances.values.add().list_value
    for _ in range(MOST_FIELDS // 2):
        rows.values.add().number_value = 1.0

    with pytest.raises(TooLarge):
        message_limits.check(request.SerializeToString(), router.PredictRequest.DESCRIPTOR)


@given(st.binary(min_size=1, max_size=40))
def test_rubbish_is_left_to_the_parser(piece: bytes) -> None:
    data = (piece * (COUNTED_FROM_BYTES // len(piece) + 1))[:COUNTED_FROM_BYTES]

    with contextlib.suppress(TooLarge):
        message_limits.check(data, REQUEST.DESCRIPTOR)
    with contextlib.suppress(DecodeError):
        REQUEST.FromString(data)
