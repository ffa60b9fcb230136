"""Tensors in the four forms of the protocol: plain items, raw bytes, typed contents, JSON.

Raw: row-major, little-endian, no padding; a BYTES element is its 4-byte length and its bytes. BF16
items are 16-bit words, since Python has no such number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stellwerk.conformance.expect import Mismatch, shown, that
from stellwerk.inference.v2 import grpc_service_pb2 as pb

# Datatype → its letter for the module struct.
FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "BF16": "H",
    "FP32": "f",
    "FP64": "d",
}
# Datatype → the field of InferTensorContents that holds it; FP16 and BF16 have none.
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
FLOATS = ("FP16", "FP32", "FP64")
# Six items of each datatype, the extremes among them.
SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True, True, False],
    "INT8": [-128, 127, 0, 1, -1, 42],
    "INT16": [-32768, 32767, 0, 1, -1, 300],
    "INT32": [-(2**31), 2**31 - 1, 0, 1, -1, 70000],
    "INT64": [-(2**63), 2**63 - 1, 0, 1, -1, 2**53 + 1],
    "UINT8": [0, 255, 1, 2, 128, 42],
    "UINT16": [0, 65535, 1, 2, 256, 300],
    "UINT32": [0, 2**32 - 1, 1, 2, 2**31, 70000],
    "UINT64": [0, 2**64 - 1, 1, 2, 2**63, 2**53 + 1],
    "FP16": [0.0, -0.0, 1.5, -65504.0, 2.0**-14, 0.333251953125],
    "BF16": [0x0000, 0x3F80, 0xC040, 0x7F7F, 0x0080, 0x3EAB],
    "FP32": [0.0, -0.0, 1.5, -3.4028234663852886e38, 1.1754943508222875e-38, 0.10000000149011612],
    "FP64": [0.0, -0.0, 1.5, -1.7976931348623157e308, 2.2250738585072014e-308, 0.1],
    "BYTES": [b"", b"a", "Größe".encode(), "信号".encode(), b'"quoted" \\ and\nbroken', b"x" * 300],
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor; `items` are flat and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    items: Sequence[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def raw(self) -> bytes:
        """Returns the items as raw bytes."""
        return pack(self.datatype, self.items)

    def typed(self) -> pb.InferTensorContents:
        """Returns the items as typed contents."""
        return pb.InferTensorContents(**{FIELDS[self.datatype]: list(self.items)})

    def json(self, **changes: Any) -> dict[str, Any]:
        """Returns a member of `inputs` in JSON, with members changed; None leaves one out."""
        whole = {"name": self.name, "shape": list(self.shape), "datatype": self.datatype, **changes}
        if "data" not in changes:
            whole["data"] = [
                item.decode() if isinstance(item, bytes) else item for item in self.items
            ]
        return {key: value for key, value in whole.items() if value is not None}

    def message(self, typed: bool = False) -> pb.ModelInferRequest.InferInputTensor:
        """Returns a member of `inputs` in protobuf, without contents unless `typed`."""
        whole = pb.ModelInferRequest.InferInputTensor(
            name=self.name, datatype=self.datatype, shape=self.shape
        )
        if typed:
            whole.contents.CopyFrom(self.typed())
        return whole


def sample(datatype: str, name: str = "INPUT0") -> Tensor:
    """Returns a tensor of this datatype and shape [2, 3]."""
    return Tensor(name, datatype, (2, 3), SAMPLES[datatype])


def pack(datatype: str, items: Sequence[Any]) -> bytes:
    """Returns items as raw bytes."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    return struct.pack(f"<{len(items)}{FORMATS[datatype]}", *items)


def unpack(datatype: str, data: bytes) -> list[Any]:
    """Returns raw bytes as items. Raises Mismatch if they are no whole number of items."""
    if datatype == "BYTES":
        return _unpack_bytes(data)
    that(datatype in FORMATS, "a datatype of the protocol", datatype)
    size = struct.calcsize("<" + FORMATS[datatype])
    that(len(data) % size == 0, f"a multiple of {size} bytes of {datatype}", f"{len(data)} bytes")
    return list(struct.unpack(f"<{len(data) // size}{FORMATS[datatype]}", data))


def _unpack_bytes(data: bytes) -> list[bytes]:
    items, offset = [], 0
    while offset < len(data):
        that(offset + 4 <= len(data), "4 bytes of length before each BYTES element", data[offset:])
        (length,) = struct.unpack_from("<I", data, offset)
        that(
            offset + 4 + length <= len(data),
            f"a BYTES element of {length} bytes",
            f"{len(data) - offset - 4} bytes",
        )
        items.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return items


def from_json(datatype: str, data: Any) -> list[Any]:
    """Returns the `data` of an output, nested or flat, as items."""
    flat = [item for part in data for item in _flat(part)] if isinstance(data, list) else [data]
    if datatype == "BYTES":
        return [item.encode() if isinstance(item, str) else item for item in flat]
    if datatype in FLOATS:
        return [
            float(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
            for item in flat
        ]
    return flat


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if isinstance(data, list) else [data]


def same(datatype: str, got: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Returns whether the items have the same bytes in this datatype; every NaN equals every
    other.
    """
    if len(got) != len(expected) or datatype == "BYTES":
        return list(got) == list(expected)
    return all(_same(datatype, a, b) for a, b in zip(got, expected, strict=True))


def _same(datatype: str, got: Any, expected: Any) -> bool:
    if (
        isinstance(got, float)
        and isinstance(expected, float)
        and math.isnan(got)
        and math.isnan(expected)
    ):
        return True
    if datatype == "BOOL" and not isinstance(got, bool):
        return got in (0, 1) and bool(got) == expected
    try:
        return pack(datatype, [got]) == pack(datatype, [expected])
    except (struct.error, OverflowError):
        return False


def echoed(outputs: Mapping[str, Tensor], sent: Tensor, name: str) -> None:
    """Raises Mismatch unless the output has the datatype, shape and items of `sent`."""
    if name not in outputs:
        raise Mismatch(f"the output {name}", shown(sorted(outputs)))
    got = outputs[name]
    that(got.datatype == sent.datatype, f"{name} of {sent.datatype}", got.datatype)
    that(
        tuple(got.shape) == tuple(sent.shape),
        f"{name} of shape {list(sent.shape)}",
        list(got.shape),
    )
    that(
        same(sent.datatype, got.items, sent.items),
        f"{name} with {shown(list(sent.items))}",
        list(got.items),
    )
