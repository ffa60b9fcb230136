"""proto3 JSON into messages: what is accepted is read as protobuf reads it, what is not names the
field.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import orjson
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from services.api_gateway.transcoding import json_body, proto_json
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput, TooLarge

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def read(message: Any, data: object) -> Any:
    proto_json.fill(message, data)
    return message


@given(
    st.builds(
        repository.ModelVersion,
        name=TEXT,
        version=INT64,
        size_bytes=INT64,
        labels=st.dictionaries(TEXT, TEXT, max_size=3),
        signature=st.lists(
            st.builds(
                tensor_pb2.MethodSignature,
                method=TEXT,
                inputs=st.lists(
                    st.builds(tensor_pb2.TensorSpec, name=TEXT, shape=st.lists(INT64, max_size=3)),
                    max_size=2,
                ),
            ),
            max_size=2,
        ),
    )
)
def test_a_message_survives_its_json_form(message: repository.ModelVersion) -> None:
    for by_proto_name in (False, True):
        data = json_format.MessageToDict(message, preserving_proto_field_name=by_proto_name)

        assert read(repository.ModelVersion(), orjson.loads(orjson.dumps(data))) == message


@given(
    st.builds(
        inference.InferTensorContents,
        bool_contents=st.lists(st.booleans(), max_size=3),
        uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=3),
        fp32_contents=st.lists(st.floats(width=32, allow_nan=False), max_size=3),
        fp64_contents=st.lists(st.floats(allow_nan=False), max_size=3),
        bytes_contents=st.lists(st.binary(max_size=9), max_size=3),
    )
)
@example(
    inference.InferTensorContents(fp32_contents=[3.4028234663852886e38, -3.4028234663852886e38])
)
def test_numbers_and_bytes_survive_their_json_form(message: inference.InferTensorContents) -> None:
    assert read(inference.InferTensorContents(), json_format.MessageToDict(message)) == message


@given(JSON)
def test_free_form_values_are_read_as_protobuf_reads_them(data: Any) -> None:
    assert read(struct_pb2.Value(), data) == json_format.ParseDict(data, struct_pb2.Value())


@given(JSON)
def test_rubbish_is_read_or_refused_but_never_breaks(data: Any) -> None:
    for message in (router.PredictRequest(), repository.CreateUploadRequest(), audit.AuditRecord()):
        with contextlib.suppress(InvalidInput):
            proto_json.fill(message, data)


@pytest.mark.parametrize(
    ("message", "data", "field"),
    [
        (repository.ModelVersion(), {"nope": 1}, "nope"),
        (
            repository.CreateUploadRequest(),
            {"modelVersion": {"labels": {"a": 1}}},
            "modelVersion.labels[a]",
        ),
        (
            repository.CreateUploadRequest(),
            {"model_version": {"labels": []}},
            "model_version.labels",
        ),
        (repository.ModelVersion(), {"sizeBytes": 1.5}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": True}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": str(2**63)}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": "1_000"}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": " 1"}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": "1e400"}, "sizeBytes"),
        (repository.ModelVersion(), {"sizeBytes": "١"}, "sizeBytes"),
        (repository.ModelVersion(), {"name": 7}, "name"),
        (repository.ModelVersion(), {"name": "a", "size_bytes": 1, "sizeBytes": 1}, "sizeBytes"),
        (repository.ModelVersion(), {"createTime": "yesterday"}, "createTime"),
        (repository.ModelVersion(), {"createTime": 5}, "createTime"),
        (repository.ModelVersion(), {"signature": {}}, "signature"),
        (repository.ModelVersion(), {"signature": [None]}, "signature[0]"),
        (repository.ModelVersion(), {"requires": "gpu"}, "requires"),
        (repository.ModelVersion(), {"requires": {"cpuCores": -1}}, "requires.cpuCores"),
        (tensor_pb2.Tensor(), {"data": "!!!!"}, "data"),
        (tensor_pb2.Tensor(), {"data": "a"}, "data"),
        (tensor_pb2.Tensor(), {"shape": [1, "x"]}, "shape[1]"),
        (audit.AuditRecord(), {"kind": "KIND_NONE"}, "kind"),
        (inference.InferParameter(), {"boolParam": True, "stringParam": "x"}, "stringParam"),
        (inference.InferTensorContents(), {"fp32_contents": [1e39]}, "fp32_contents[0]"),
        (identity.Principal(), {"disabled": "true"}, "disabled"),
    ],
)
def test_what_does_not_fit_names_its_field(message: Any, data: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        proto_json.fill(message, data)
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":NaN}', b"\xff", b'{"a":1}x', b'"\\ud800"'])
def test_malformed_json_is_invalid_input(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        json_body.parse(body)


@pytest.mark.parametrize("data", [[], 1, "x", None])
def test_a_body_that_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInput):
        proto_json.fill(repository.Model(), data)


def test_deep_nesting_is_refused() -> None:
    data: Any = 1
    for _ in range(500):
        data = [data]

    with pytest.raises(InvalidInput):
        proto_json.fill(struct_pb2.Value(), data)


def test_bytes_come_in_both_alphabets_with_and_without_padding() -> None:
    for text in ("-_8=", "+/8=", "-_8", "+/8"):
        assert read(tensor_pb2.Tensor(), {"data": text}).data == b"\xfb\xff"


def test_numbers_may_be_strings_and_special() -> None:
    contents = read(
        inference.InferTensorContents(),
        {"fp64Contents": ["1e3", "NaN", "-Infinity"], "intContents": ["7", 8.0]},
    )

    assert contents.fp64_contents[0] == 1000.0
    assert math.isnan(contents.fp64_contents[1])
    assert contents.int_contents == [7, 8]


def test_null_leaves_a_field_unset() -> None:
    assert (
        read(repository.ModelVersion(), {"name": None, "labels": None, "requires": None})
        == repository.ModelVersion()
    )


def test_enums_by_name_and_number() -> None:
    assert read(audit.AuditRecord(), {"kind": "KIND_REFUSAL"}).kind == 3
    assert read(audit.AuditRecord(), {"kind": 2}).kind == 2


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[" + b"[]," * 1_100_000 + b"1]", "lists and objects"),
        (b"[" + b"{}," * 1_100_000 + b"1]", "lists and objects"),
        (b"{" + b'"k":1,' * 1_100_000 + b'"k":1}', "keys"),
        (b"[" + b"1," * 8_500_000 + b"1]", "elements"),
    ],
)
def test_a_body_of_too_many_parts_is_refused_before_it_is_read(body: bytes, what: str) -> None:
    with pytest.raises(TooLarge, match=what):
        json_body.parse(body)


def test_a_large_body_of_few_parts_is_read() -> None:
    rows = orjson.dumps({"data": [[0.5, 1.5, 2.5, 3.5]] * 100_000, "text": "[{," * 100_000})

    assert len(json_body.parse(memoryview(rows))["data"]) == 100_000
    with pytest.raises(TooLarge):
        json_body.parse(rows, json_body.FIELDS)
