"""Requests that lie about their tensors. The model has the inputs `numbers`, INT32 [-1, 2], and
`words`, BYTES [-1].
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from stellwerk.inference.v2 import grpc_service_pb2 as oip
from stellwerk.job.v1 import work_pb2

MODEL = "carrier"
HUGE = 2**62
# Shapes of `numbers`; its data stays what it is, two elements.
SHAPES: dict[str, list[int]] = {
    "overflow": [HUGE, 4],
    "overflow to zero": [2**32, 2**32],
    "overflow hidden by a zero": [HUGE, HUGE, 0],
    "overflow to what is there": [HUGE + 1, 2],
    "largest": [2**63 - 1, 2],
    "most negative": [-(2**63), 2],
    "negative": [-1, 2],
    "negative twice": [-1, -2],
    "65 dimensions": [1] * 64 + [2],
    "100,000 dimensions": [1] * 100_000,
    "more rows": [2, 2],
    "many rows": [2**30, 2],
    "no rows": [0, 2],
    "other columns": [2, 1],
    "scalar": [],
    "flat": [2],
}
NAMES = {
    "empty": "",
    "unknown": "letters",
    "a megabyte": "n" * 1024 * 1024,
    "NUL": "numbers\0",
    "the other's": "words",
}
DATATYPES = {
    "unknown": "INT31",
    "empty": "",
    "a megabyte": "I" * 1024 * 1024,
    "other width": "INT64",
    "BYTES": "BYTES",
}
_ONE_WORD = b"\x01\0\0\0a"
# Data of `words`, which has one element.
WORDS = {
    "length beyond the end": b"\x02\0\0\0a",
    "largest length": b"\xff\xff\xff\xffa",
    "length that breaks off": b"\x01\0\0",
    "nothing": b"",
    "two words": _ONE_WORD * 2,
    "bytes behind": _ONE_WORD + b"b",
}

Request = oip.ModelInferRequest


def typed() -> Request:
    """An honest request, its data in fields by type."""
    request = Request(model_name=MODEL)
    request.inputs.add(name="numbers", datatype="INT32", shape=[1, 2]).contents.int_contents.extend(
        [1, 2]
    )
    request.inputs.add(name="words", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        b"a"
    )
    return request


def raw() -> Request:
    """An honest request, its data as bytes."""
    request = Request(model_name=MODEL, raw_input_contents=[b"\1\0\0\0\2\0\0\0", _ONE_WORD])
    request.inputs.add(name="numbers", datatype="INT32", shape=[1, 2])
    request.inputs.add(name="words", datatype="BYTES", shape=[1])
    return request


def _told(make: Callable[[], Request], change: Callable[[Request], Any]) -> Request:
    request = make()
    change(request)
    return request


def _set(request: Request, **fields: Any) -> None:
    """Changes the description of `numbers`."""
    numbers = request.inputs[0]
    shape = fields.pop("shape", None)
    if shape is not None:
        numbers.shape[:] = shape
    for name, value in fields.items():
        setattr(numbers, name, value)


def over_grpc() -> dict[str, Request]:
    """Lies as messages, by what is wrong."""
    lies: dict[str, Request] = {}
    for way, make in {"typed": typed, "raw": raw}.items():
        for name, shape in SHAPES.items():
            lies[f"{way}, shape: {name}"] = _told(make, lambda r, shape=shape: _set(r, shape=shape))
        for name, given in NAMES.items():
            lies[f"{way}, name: {name}"] = _told(make, lambda r, given=given: _set(r, name=given))
        for name, given in DATATYPES.items():
            lies[f"{way}, datatype: {name}"] = _told(
                make, lambda r, given=given: _set(r, datatype=given)
            )
        lies[f"{way}, twice"] = _told(make, lambda r: r.inputs.append(r.inputs[0]))
        lies[f"{way}, missing"] = _told(make, lambda r: r.inputs.pop())
        lies[f"{way}, output twice"] = _told(
            make, lambda r: [r.outputs.add(name="same numbers") for _ in range(2)]
        )
        lies[f"{way}, output unknown"] = _told(make, lambda r: r.outputs.add(name="o" * 100_000))
    for name, data in WORDS.items():
        lies[f"raw, words: {name}"] = _told(raw, lambda r, data=data: _put(r, 1, data))
    for name, data in {
        "short": b"\1\0\0\0\2\0\0",
        "long": b"\1\0\0\0\2\0\0\0\0",
        "nothing": b"",
    }.items():
        lies[f"raw, data: {name}"] = _told(raw, lambda r, data=data: _put(r, 0, data))
    lies["raw, entry twice"] = _told(raw, lambda r: r.raw_input_contents.append(_ONE_WORD))
    lies["raw, given twice"] = _told(
        raw, lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"\0" * 8))
    )
    lies["raw and typed"] = _told(raw, lambda r: r.inputs[0].contents.int_contents.extend([1, 2]))
    lies["typed, data: short"] = _told(typed, lambda r: r.inputs[0].contents.int_contents.pop())
    lies["typed, data: long"] = _told(typed, lambda r: r.inputs[0].contents.int_contents.append(3))
    lies["typed, data: nothing"] = _told(typed, lambda r: r.inputs[0].ClearField("contents"))
    lies["typed, data: other field"] = _told(
        typed, lambda r: r.inputs[0].contents.fp32_contents.append(1.0)
    )
    lies["typed, words: two"] = _told(
        typed, lambda r: r.inputs[1].contents.bytes_contents.append(b"b")
    )
    return lies


def _put(request: Request, index: int, data: bytes) -> None:
    request.raw_input_contents[index] = data


def as_work(request: Request) -> work_pb2.WorkItem:
    """A request with raw data as a router that checks nothing would pass it on."""
    item = work_pb2.WorkItem(
        method="predict", outputs=[output.name for output in request.outputs], timeout_ms=20_000
    )
    for given, data in itertools.zip_longest(
        request.inputs, request.raw_input_contents, fillvalue=b""
    ):
        if given:
            item.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape, data=data)
    return item


def plain() -> dict[str, Any]:
    """An honest request as JSON."""
    return {
        "inputs": [
            {"name": "numbers", "datatype": "INT32", "shape": [1, 2], "data": [1, 2]},
            {"name": "words", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        ]
    }


def _changes() -> dict[str, dict[str, Any]]:
    """What is changed in the first input of an honest request, by what is wrong then."""
    return {
        **{f"shape: {name}": {"shape": shape} for name, shape in SHAPES.items()},
        **{f"name: {name}": {"name": given} for name, given in NAMES.items()},
        **{
            f"datatype: {name}": {"datatype": given}
            for name, given in DATATYPES.items()
            if name != "other width"
        },
        **{
            f"shape of {type(part).__name__}": {"shape": [1, part]}
            for part in (2.0, "2", True, None, [2])
        },
        "shape: beyond 64 bits": {"shape": [2**63, 2]},
        "shape: beyond all bits": {"shape": [10**400, 2]},
        "shape: no list": {"shape": "12"},
        "no shape": {"shape": None},
        "no name": {"name": None},
        "no datatype": {"datatype": 32},
        "data: short": {"data": [1]},
        "data: long": {"data": [1, 2, 3]},
        "data: nothing": {"data": []},
        "data: none": {"data": None},
        "data: no list": {"data": {"0": 1}},
        "data: ragged": {"data": [[1], [2, 3]]},
        "data: nested otherwise": {"data": [[1], [2]]},
        "data: nested for ever": {"data": json.loads("[" * 200 + "1" + "]" * 200)},
        **{
            f"data: {part!r}"[:40]: {"data": [1, part]}
            for part in (1.5, "2", True, None, 2**31, -(2**31) - 1, 10**400)
        },
        "data: both": {"parameters": {"binary_data_size": 8}},
    }


def over_rest() -> dict[str, bytes]:
    """Lies as JSON, by what is wrong."""
    lies = {}
    for name, change in _changes().items():
        request = plain()
        request["inputs"][0].update(change)
        lies[name] = json.dumps(request).encode()
    doubled = plain()
    doubled["inputs"].append(doubled["inputs"][0])
    lies["given twice"] = json.dumps(doubled).encode()
    lies["NaN"] = lies["data: 1.5"].replace(b"1.5", b"NaN")
    lies["infinity"] = lies["data: 1.5"].replace(b"1.5", b"1e999")
    return lies


def binary(
    size: object = 8, numbers: bytes = b"\1\0\0\0\2\0\0\0", words: bytes = _ONE_WORD, **given: Any
) -> bytes:
    """A request of the binary extension, its JSON and then its data; `size` is what it says of
    `numbers`.
    """
    description = {
        "name": "numbers",
        "datatype": "INT32",
        "shape": [1, 2],
        "parameters": {"binary_data_size": size},
    }
    other = {
        "name": "words",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(words)},
    }
    head = json.dumps({"inputs": [{**description, **given}, other]}).encode()
    return len(head).to_bytes(8, "big") + head + numbers + words


def over_binary() -> dict[str, bytes]:
    """Lies of the binary extension; the first eight bytes are the length of the JSON, to be told in
    the header.
    """
    return {
        **{f"shape: {name}": binary(shape=shape) for name, shape in SHAPES.items()},
        **{f"words: {name}": binary(words=data) for name, data in WORDS.items()},
        **{
            f"size of {size!r}"[:40]: binary(size)
            for size in (-8, 0, 7, 9, 2**31, 2**63, 2**64, 8.0, "8", True, None, [8])
        },
        "both": binary(data=[1, 2]),
        "data: short": binary(numbers=b"\1\0\0\0"),
        "data: long": binary(numbers=b"\1\0\0\0\2\0\0\0\3\0\0\0"),
    }
