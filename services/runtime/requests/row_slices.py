"""Requests of one form as one call's arrays, and its answer cut back into each one's bytes.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from struct import unpack_from

import numpy as np

from services.runtime.formats.port import Array, Arrays
from services.runtime.requests.layouts import Field, Form
from services.runtime.requests.request import Request
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput, ModelFailed


def join(form: Form, requests: Sequence[Request]) -> dict[str, Array]:
    """The inputs of requests of one form, their rows end to end in this order; several only of a
    form by rows.
    """
    if not form.by_rows:
        (request,) = requests
        return {
            field.name: np.asarray(part)
            for field, part in zip(form.fields, request.parts, strict=True)
        }
    rows = sum([request.rows for request in requests])
    return {
        field.name: _array(field, [request.parts[index] for request in requests], rows)
        for index, field in enumerate(form.fields)
    }


def _array(field: Field, parts: Sequence[bytes | Array], rows: int) -> Array:
    if not field.row_bytes:
        arrays = [np.asarray(part) for part in parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    data = b"".join(parts) if len(parts) > 1 else parts[0]  # type: ignore[arg-type]
    return tensors.numbers(field.datatype, data, (rows, *field.trailing))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Column:
    """One output of a call. Where each row ends is known, so that any rows can be cut out of it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    # Of each row; 0 where rows differ in length and `ends` says where each ends.
    row_bytes: int = 0
    ends: tuple[int, ...] = ()

    def all(self) -> bytes:
        """The data of all rows."""
        return bytes(self.data)

    def cut(self, start: int, stop: int) -> bytes:
        """The data of the rows from `start` up to `stop`."""
        if self.ends:
            return bytes(self.data[self.ends[start] : self.ends[stop]])
        return bytes(self.data[start * self.row_bytes : stop * self.row_bytes])


def whole(name: str, array: Array) -> Column:
    """An output that is not to be cut. Raises InvalidInput as `tensors.from_numpy` does."""
    tensor = tensors.from_numpy(name, array)
    return Column(name, tensor.datatype, tuple(tensor.shape), tensor.data)


def column(name: str, array: Array) -> Column:
    """An output that has a first dimension. Raises InvalidInput as `tensors.from_numpy` does."""
    rows = array.shape[0]
    dtype = array.dtype.newbyteorder("<")
    datatype = tensors.DATATYPES.get(dtype)
    if datatype is None or not array.size:
        tensor = tensors.from_numpy(name, array)
        ends = _ends(tensor.data, rows, array.size // rows if rows else 0)
        return Column(name, tensor.datatype, tuple(tensor.shape), tensor.data, ends=ends)
    # The array lives as long as the view; nothing is copied but each one's own rows.
    view = np.ascontiguousarray(array, dtype=dtype).data.cast("B")
    return Column(name, datatype, array.shape, view, row_bytes=view.nbytes // rows)


def _ends(data: bytes, rows: int, elements: int) -> tuple[int, ...]:
    """Where each row of so many BYTES elements begins, and where the last one ends."""
    offset, ends = 0, [0]
    for _ in range(rows):
        for _ in range(elements):
            offset += 4 + unpack_from("<I", data, offset)[0]
        ends.append(offset)
    return tuple(ends)


def offsets(requests: Sequence[Request]) -> list[int]:
    """Where the rows of each request begin in the call that joined them, and where the last ones
    end.
    """
    return list(accumulate([request.rows for request in requests], initial=0))


def check_rows(answer: Arrays, rows: int) -> None:
    """Raises ModelFailed unless every output has as many rows as the input had."""
    for name, array in answer.items():
        got = array.shape[0] if array.ndim else None
        if got != rows:
            raise ModelFailed(
                f"the model answered {got} rows for {rows} in output '{name}'",
                tensor=name,
                expected=rows,
                got=got,
            )


def select(answer: Arrays, wanted: Sequence[str]) -> Arrays:
    """The wanted outputs in their order, all for none named. InvalidInput for one that the model
    does not give.
    """
    if not wanted:
        return answer
    for name in wanted:
        if name not in answer:
            raise InvalidInput(
                f"the model has no output '{name[:64]}'; it gives {', '.join(answer)}",
                tensor=name[:64],
            )
    return {name: answer[name] for name in wanted}
