"""What a caller may say about a version, and every bound of it."""

from __future__ import annotations

import hashlib
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.repository.artifacts.incoming import ArtifactChunker
from services.repository.catalogue.formats import (
    HEAD_BYTES,
    UNSAFE_FORMATS,
    check_beginning,
    check_format,
    is_pickle,
)
from services.repository.catalogue.specs import SERVING_BOUNDS, check_spec
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.type.v1 import requirements_pb2, serving_pb2, tensor_pb2
from stellwerk.wire.errors import InvalidInput, TooLarge

LIMIT = 1 << 30


def method(**spec: Any) -> list[tensor_pb2.MethodSignature]:
    given_spec = {"name": "x", "datatype": "FP32", "shape": [-1, 4], **spec}
    return [
        tensor_pb2.MethodSignature(method="predict", inputs=[tensor_pb2.TensorSpec(**given_spec)])
    ]


def requires(**parts: Any) -> requirements_pb2.Requirements:
    return requirements_pb2.Requirements(**parts)


def serving(**parts: Any) -> serving_pb2.ServingPolicy:
    return serving_pb2.ServingPolicy(**parts)


def test_a_full_description_passes_and_loses_only_output_fields() -> None:
    said = pb.ModelVersion(
        format="skops",
        sha256="a" * 64,
        size_bytes=5,
        labels={"team.x/y": "blue whale"},
        metadata={"run id": "7\nlines"},
        description="what it is\n",
        signature=method(columns=["a", "b", "c", "d"]),
        requires=requires(
            accelerator_count=1,
            accelerator_kind="cuda",
            frameworks={"torch": ">=2.4,<3", "numpy": ""},
        ),
        format_options={"module": "resnet"},
        serving=serving(
            max_batch_size=32,
            preferred_batch_sizes=[8, 32],
            priority_levels=3,
            default_priority=2,
            response_cache=True,
            warmup=[
                {
                    "inputs": [
                        tensor_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], data=bytes(16))
                    ]
                },
            ],
        ),
    )
    given_version = pb.ModelVersion(name="mine", version=9, creator="me")
    given_version.MergeFrom(said)

    assert check_spec(given_version, LIMIT) == said


WRONG: dict[str, dict[str, Any]] = {
    "no format": {"format": ""},
    "format with a capital": {"format": "ONNX"},
    "format that is a path": {"format": "../onnx"},
    "short digest": {"sha256": "abc"},
    "capital digest": {"sha256": "A" * 64},
    "negative size": {"size_bytes": -1},
    "long description": {"description": "x" * 8193},
    "NUL in description": {"description": "a\0b"},
    "empty label key": {"labels": {"": "x"}},
    "label key with blank": {"labels": {"a b": "x"}},
    "label key that is an operator": {"labels": {"$gt": "x"}},
    "long label value": {"labels": {"a": "x" * 129}},
    "label value with control": {"labels": {"a": "x\ny"}},
    "label value with bidi override": {"labels": {"a": "x\u202ey"}},
    "too many labels": {"labels": {f"l{n}": "x" for n in range(65)}},
    "metadata key with NUL": {"metadata": {"a\0b": "x"}},
    "long metadata value": {"metadata": {"a": "x" * 65537}},
    "too many metadata": {"metadata": {f"m{n}": "x" for n in range(257)}},
    "option key with quote": {"format_options": {"a'b": "x"}},
    "unknown datatype": {"signature": method(datatype="FP31")},
    "nameless tensor": {"signature": method(name="")},
    "dimension below -1": {"signature": method(shape=[-2])},
    "overflowing shape": {"signature": method(shape=[2**40, 2**40, 0])},
    "33 dimensions": {"signature": method(shape=[1] * 33)},
    "columns that do not fit": {"signature": method(columns=["a"])},
    "columns without dimensions": {"signature": method(shape=[], columns=["a"])},
    "empty column": {"signature": method(columns=["a", "b", "c", ""])},
    "method with blank": {"signature": [tensor_pb2.MethodSignature(method="a b")]},
    "method twice": {"signature": method() + method()},
    "tensor twice": {
        "signature": [
            tensor_pb2.MethodSignature(
                method="m",
                outputs=[tensor_pb2.TensorSpec(name="y", datatype="FP32", shape=[1])] * 2,
            )
        ]
    },
    "accelerator kind": {"requires": requires(accelerator_kind="cu da")},
    "accelerators": {"requires": requires(accelerator_count=5000)},
    "framework name": {"requires": requires(frameworks={"to rch": ""})},
    "framework specifier": {"requires": requires(frameworks={"torch": "newest"})},
    "rows in one call": {"serving": serving(max_batch_size=70_000)},
    "default priority": {"serving": serving(priority_levels=2, default_priority=3)},
    "preferred size over the largest": {
        "serving": serving(max_batch_size=8, preferred_batch_sizes=[16])
    },
    "preferred size of none": {"serving": serving(preferred_batch_sizes=[0])},
    "preferred size twice": {"serving": serving(preferred_batch_sizes=[4, 4])},
    "hours of delay": {"serving": serving(max_queue_delay_us=2**31)},
    "warm-up of no method": {"signature": method(), "serving": serving(warmup=[{"method": "fit"}])},
    "warm-up without its input": {"signature": method(), "serving": serving(warmup=[{}])},
    "warm-up that lies": {
        "serving": serving(
            warmup=[
                {"inputs": [tensor_pb2.Tensor(name="x", datatype="FP32", shape=[2], data=b"1")]}
            ]
        )
    },
    "required label": {"requires": requires(labels={"a b": "x"})},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_has_not_its_form_or_bound_is_refused(case: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_spec(pb.ModelVersion(**{"format": "skops", **WRONG[case]}), LIMIT)
    assert len(raised.value.message) < 300


def test_what_is_too_large_says_so() -> None:
    with pytest.raises(TooLarge):
        check_spec(pb.ModelVersion(format="skops", size_bytes=LIMIT + 1), LIMIT)
    with pytest.raises(TooLarge):
        check_spec(
            pb.ModelVersion(format="skops", metadata={f"m{n}": "x" * 60_000 for n in range(20)}),
            LIMIT,
        )


GOOD: dict[str, list[bytes]] = {
    "skops": [b"PK\x03\x04rest"],
    "torch_export": [b"PK\x03\x04rest"],
    "onnx": [b"\x08\x07\x12\x07pytorch", b"\x08\x0a\x12\x00"],
    "torch_safetensors": [struct.pack("<Q", 40) + b'{"a":1}'],
    "pickle": [pickle.dumps([1], protocol) for protocol in (2, 3, 4, 5)],
    "cloudpickle": [pickle.dumps([1], 5)],
    "joblib": [pickle.dumps([1], 4), b"\x78\x9c...", b"\x1f\x8b...", b"BZh9..."],
    "xgboost": [b'{"learner"', b"anything", b"\x80"],
}


@pytest.mark.parametrize("format_id", GOOD)
def test_an_artifact_of_its_format_passes(format_id: str) -> None:
    for beginning in GOOD[format_id]:
        check_beginning(format_id, beginning[:HEAD_BYTES])


@pytest.mark.parametrize("format_id", [f for f in GOOD if f not in UNSAFE_FORMATS])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_says_it_is_something_else_is_refused(format_id: str, protocol: int) -> None:
    with pytest.raises(InvalidInput, match="pickle, which can run code"):
        check_beginning(format_id, pickle.dumps({"a": 1}, protocol)[:HEAD_BYTES])


@pytest.mark.parametrize("format_id", [f for f in GOOD if f != "xgboost"])
@pytest.mark.parametrize(
    "head", [b"", b"\x93NUMPY\x01\x00", b"(lp0\nI1\na.", b"\x00" * 16, b"#!/bin/sh\n", b"GIF89a"]
)
def test_something_else_is_refused_under_every_known_format(format_id: str, head: bytes) -> None:
    with pytest.raises(InvalidInput):
        check_beginning(format_id, head)


@given(st.binary(max_size=HEAD_BYTES))
def test_no_safe_format_ever_begins_as_a_pickle(head: bytes) -> None:
    for format_id in ("skops", "onnx", "torch_export", "torch_safetensors", "mine"):
        try:
            check_beginning(format_id, head)
        except InvalidInput:
            continue
        # A safetensors length of 0x..80 is told by the brace that follows it.
        assert not is_pickle(head) or (format_id == "torch_safetensors" and head[8:9] == b"{")


@pytest.mark.parametrize("value", ["", "A", "1a", "a-b", "a/b", "a" * 33, "ä", "a\n"])
def test_a_format_is_an_id(value: str) -> None:
    with pytest.raises(InvalidInput):
        check_format(value)


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(1, 40))
def test_pieces_of_any_size_become_chunks_of_one_size(parts: list[bytes], chunk_bytes: int) -> None:
    data = b"".join(parts)
    intake = ArtifactChunker(pb.ModelVersion(format="mine"), 10_000, chunk_bytes)
    chunks: list[bytes] = []
    try:
        for part in parts:
            chunks += intake.feed(part)
        chunks += intake.end()
    except InvalidInput:
        assert not data or is_pickle(data)
        return
    for chunk in chunks:
        intake.digest(chunk)

    assert b"".join(chunks) == data and intake.size == len(data)
    assert (
        all(len(chunk) == chunk_bytes for chunk in chunks[:-1])
        and 0 < len(chunks[-1]) <= chunk_bytes
    )
    assert intake.finish() == hashlib.sha256(data).hexdigest()


def test_nothing_is_given_out_before_the_beginning_is_checked() -> None:
    intake = ArtifactChunker(pb.ModelVersion(format="skops"), 10_000, 64)

    assert list(intake.feed(b"\x80\x04")) == []
    with pytest.raises(InvalidInput):
        list(intake.feed(bytes(100)))


def test_every_number_of_the_serving_policy_has_a_bound() -> None:
    fields = serving_pb2.ServingPolicy.DESCRIPTOR.fields
    numbers = {
        field.name
        for field in fields
        if field.cpp_type == field.CPPTYPE_UINT32 and not field.is_repeated
    }

    assert numbers - {"default_priority"} == set(SERVING_BOUNDS)


@pytest.mark.parametrize("field", SERVING_BOUNDS)
def test_a_number_of_the_serving_policy_over_its_bound_is_refused(field: str) -> None:
    limit = SERVING_BOUNDS[field]

    check_spec(pb.ModelVersion(format="onnx", serving=serving(**{field: limit})), LIMIT)
    with pytest.raises(InvalidInput, match=rf"serving\.{field} may be {limit} at most"):
        check_spec(pb.ModelVersion(format="onnx", serving=serving(**{field: limit + 1})), LIMIT)
