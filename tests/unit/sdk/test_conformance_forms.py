"""The forms of a tensor, and binary bodies: there and back, and what is not well formed."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.conformance.expect import Mismatch
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import Reply, model_path
from stellwerk.conformance.server.rpc import infer_request, outputs_of
from stellwerk.conformance.values import (
    FIELDS,
    FORMATS,
    SAMPLES,
    Tensor,
    echoed,
    from_json,
    same,
    sample,
    unpack,
)

DATATYPES = sorted(SAMPLES)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_sample_survives_each_form(datatype: str) -> None:
    tensor = sample(datatype)

    assert same(datatype, unpack(datatype, tensor.raw()), tensor.items)
    if datatype in FIELDS:
        text = json.loads(json.dumps(tensor.json()["data"]))
        assert same(datatype, from_json(datatype, [text[:3], text[3:]]), tensor.items)
        assert same(datatype, list(getattr(tensor.typed(), FIELDS[datatype])), tensor.items)


@pytest.mark.parametrize("datatype", sorted(set(FORMATS) - {"BF16", "BOOL"}))
def test_raw_bytes_are_those_of_numpy(datatype: str) -> None:
    kinds = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    kind = kinds.get(datatype) or ("<u" if datatype[0] == "U" else "<i") + str(
        struct.calcsize(FORMATS[datatype])
    )

    assert sample(datatype).raw() == np.array(SAMPLES[datatype], kind).tobytes()


@given(st.lists(st.binary(max_size=20)))
def test_bytes_survive_the_raw_form(items: list[bytes]) -> None:
    assert unpack("BYTES", Tensor("X", "BYTES", (len(items),), items).raw()) == items


@pytest.mark.parametrize("data", [b"\x01\0\0", b"\x05\0\0\0abc", b"\xff\xff\xff\xff"])
def test_broken_bytes_are_a_mismatch(data: bytes) -> None:
    with pytest.raises(Mismatch):
        unpack("BYTES", data)


def test_what_is_the_same_is_what_the_datatype_sees() -> None:
    assert same("FP32", [0.1], [0.10000000149011612])
    assert same("FP32", [math.nan], [math.nan])
    assert not same("FP32", [0.0], [-0.0])
    assert not same("INT32", [1.5], [1])
    assert not same("INT8", [300], [44])
    assert not same("BYTES", [b"a"], [b"b"])
    assert same("BOOL", [1], [True])
    assert not same("FP64", [0.1, 0.2], [0.1])


def reply(head: Any, rest: bytes = b"", length: str | None = None) -> Reply:
    text = json.dumps(head).encode()
    headers = {binary.HEADER: length or str(len(text))} if rest or length else {}
    return Reply(200, headers, text + rest)


def output(**changes: Any) -> dict[str, Any]:
    whole = {"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0], **changes}
    return {key: value for key, value in whole.items() if value is not None}


def test_json_and_binary_outputs_are_read() -> None:
    sized = output(name="B", data=None, parameters={"binary_data_size": 8})
    found = binary.outputs_of(
        reply({"outputs": [output(), sized]}, np.array([3, 4], "<f4").tobytes())
    )

    assert list(found["OUTPUT0"].items) == [1.0, 2.0]
    assert list(found["B"].items) == [3.0, 4.0]


@pytest.mark.parametrize(
    "broken",
    [
        Reply(500, {}, b"{}"),
        Reply(200, {}, b"no json"),
        reply([]),
        reply({}),
        reply({"outputs": [{}]}),
        reply({"outputs": [output(data=None)]}),
        reply({"outputs": [output(shape=[-1])]}),
        reply({"outputs": [output(shape="2")]}),
        reply({"outputs": [output()]}, b"left over"),
        reply({"outputs": [output(data=None, parameters={"binary_data_size": 8})]}, b"1234"),
        reply({"outputs": [output(parameters={"binary_data_size": 8})]}, b"12345678"),
        reply({"outputs": [output()]}, b"", "x"),
        reply({"outputs": [output()]}, b"", "9999"),
        reply({"outputs": [output()]}, b"", "5"),
    ],
)
def test_an_answer_that_is_not_well_formed_is_a_mismatch(broken: Reply) -> None:
    with pytest.raises(Mismatch):
        binary.outputs_of(broken)


def test_a_binary_request_holds_its_tensors_after_the_header() -> None:
    first, second = sample("INT8"), Tensor("T", "BYTES", (1,), [b"\xff"])

    body, headers = binary.encode([first, second], id="7")

    length = int(headers[binary.HEADER])
    assert body[length:] == first.raw() + second.raw()
    head = json.loads(body[:length])
    assert head["id"] == "7"
    assert [t["parameters"]["binary_data_size"] for t in head["inputs"]] == [6, 5]


def test_a_request_over_grpc_is_raw_or_typed_never_both() -> None:
    raw = infer_request("m", [sample("INT8")], outputs=["OUTPUT0"])
    typed = infer_request("m", [sample("INT8")], typed=True)

    assert raw.raw_input_contents[0] == sample("INT8").raw() and not raw.inputs[0].HasField(
        "contents"
    )
    assert (
        list(typed.inputs[0].contents.int_contents) == SAMPLES["INT8"]
        and not typed.raw_input_contents
    )
    assert raw.outputs[0].name == "OUTPUT0"


def test_fewer_raw_entries_than_outputs_are_a_mismatch() -> None:
    from stellwerk.inference.v2 import grpc_service_pb2 as pb

    response = pb.ModelInferResponse(raw_output_contents=[b"1"])
    with pytest.raises(Mismatch, match="raw entry for each"):
        outputs_of(response)


@pytest.mark.parametrize(
    "got",
    [
        {},
        {"OUTPUT0": Tensor("OUTPUT0", "FP64", (2, 3), SAMPLES["FP32"])},
        {"OUTPUT0": Tensor("OUTPUT0", "FP32", (3, 2), SAMPLES["FP32"])},
        {"OUTPUT0": Tensor("OUTPUT0", "FP32", (2, 3), SAMPLES["FP32"][::-1])},
    ],
)
def test_another_tensor_is_no_echo(got: dict[str, Tensor]) -> None:
    with pytest.raises(Mismatch):
        echoed(got, sample("FP32"), "OUTPUT0")


def test_names_in_paths_are_escaped() -> None:
    assert model_path("a/b c", "infer", "1") == "/v2/models/a%2Fb%20c/versions/1/infer"
