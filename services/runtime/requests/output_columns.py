"""Checks the outputs of a call and slices their rows back into each request's bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from struct import unpack_from

import numpy as np

from services.runtime.formats.port import Array, Arrays
from services.runtime.requests.request import Request
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput, ModelFailed


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """An output of a call, serialised, out of which the bytes of any rows can be sliced."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    # Bytes of each row; 0 where rows differ in length and `ends` says where each one ends.
    row_bytes: int = 0
    ends: tuple[int, ...] = ()

    def slice_rows(self, start: int, stop: int) -> bytes:
        """Returns the data of the rows from `start` up to, not including, `stop`."""
        if self.ends:
            return bytes(self.data[self.ends[start] : self.ends[stop]])
        return bytes(self.data[start * self.row_bytes : stop * self.row_bytes])


def output_columns(
    answer: Arrays, wanted: Sequence[str], rows: int, *, sliceable: bool
) -> list[OutputColumn]:
    """Returns the wanted outputs, all if none is named, as columns.

    Raises InvalidInput for an output that the model does not give, ModelFailed for values that no
    tensor can carry. Raises ModelFailed unless every output has `rows` rows; of outputs that are
    not sliced, 0 rows stands for any number.
    """
    if rows or sliceable:
        check_rows(answer, rows)
    chosen = select_outputs(answer, wanted)
    make = sliceable_column if sliceable else whole_column
    try:
        return [make(name, np.asarray(array)) for name, array in chosen.items()]
    except InvalidInput as exc:
        raise ModelFailed(
            "the model's answer holds values that no tensor can carry; let it answer numbers or"
            " text"
        ) from exc


def whole_column(name: str, array: Array) -> OutputColumn:
    """Returns an output that is not to be sliced. Raises InvalidInput as `tensors.from_numpy`."""
    tensor = tensors.from_numpy(name, array)
    return OutputColumn(name, tensor.datatype, tuple(tensor.shape), tensor.data)


def sliceable_column(name: str, array: Array) -> OutputColumn:
    """Returns an output with a first dimension to slice along. Raises InvalidInput as
    `tensors.from_numpy` does.
    """
    rows = array.shape[0]
    dtype = array.dtype.newbyteorder("<")
    datatype = tensors.DATATYPES.get(dtype)
    if datatype is None or not array.size:
        tensor = tensors.from_numpy(name, array)
        ends = _row_ends(tensor.data, rows, array.size // rows if rows else 0)
        return OutputColumn(name, tensor.datatype, tuple(tensor.shape), tensor.data, ends=ends)
    # The view keeps the array alive, so only the rows of each request are copied.
    view = np.ascontiguousarray(array, dtype=dtype).data.cast("B")
    return OutputColumn(name, datatype, array.shape, view, row_bytes=view.nbytes // rows)


def _row_ends(data: bytes, rows: int, elements: int) -> tuple[int, ...]:
    """Returns the offsets at which rows of `elements` BYTES elements end, after a leading 0."""
    offset = 0
    ends = [0]
    for _ in range(rows):
        for _ in range(elements):
            offset += 4 + unpack_from("<I", data, offset)[0]
        ends.append(offset)
    return tuple(ends)


def row_offsets(requests: Sequence[Request]) -> list[int]:
    """Returns the row of a batch at which each request begins, and the batch's number of rows."""
    return list(accumulate([request.rows for request in requests], initial=0))


def check_rows(answer: Arrays, rows: int) -> None:
    """Raises ModelFailed unless every output has `rows` rows."""
    for name, array in answer.items():
        got = array.shape[0] if array.ndim else None
        if got != rows:
            raise ModelFailed(
                f"the model answered {got} rows for {rows} in output '{name}'",
                tensor=name,
                expected=rows,
                got=got,
            )


def select_outputs(answer: Arrays, wanted: Sequence[str]) -> Arrays:
    """Returns the wanted outputs in their order; all outputs if none is named.

    Raises InvalidInput for an output that the model does not give.
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
