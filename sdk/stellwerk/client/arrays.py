"""Converts numpy arrays, DataFrames and lists to tensors of a model's signature, and tensors back
to numpy arrays.

Values are never changed on the way: a cast that could lose them is refused with a sentence that
says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.tensor_pb2 import MethodSignature, Tensor, TensorSpec
from stellwerk.wire import tensors

Array = npt.NDArray[Any]
# The input of the method "score" that holds the true values.
TARGET = "y"
# The input of a model that was stored without a signature.
UNDECLARED = TensorSpec(name="X")


def is_frame(value: object) -> TypeGuard[Any]:
    """Returns whether the value is a pandas DataFrame, without importing pandas."""
    return hasattr(value, "columns") and hasattr(value, "iloc")


def to_tensors(data: Any, signature: MethodSignature | None, target: Any = None) -> list[Tensor]:
    """Returns the tensors of one call, in the order of the signature.

    `data` is an array, a DataFrame or lists for a model with one input, rows first; else a mapping
    by input name, or a DataFrame with these columns. `target` holds the true values for `score`.
    Raises InvalidInput if data and signature do not fit.
    """
    specs = list(signature.inputs) if signature else [UNDECLARED]
    found = []
    if target is not None:
        spec = next((spec for spec in specs if spec.name == TARGET), TensorSpec(name=TARGET))
        found.append(to_tensor(target, spec))
        specs = [spec for spec in specs if spec.name != TARGET]
    by_name = data if isinstance(data, Mapping) or (is_frame(data) and len(specs) > 1) else None
    if by_name is None:
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise InvalidInput(
                f"the model takes {len(specs)} inputs ({names}); give a DataFrame or a dict with"
                " these"
            )
        return [to_tensor(data, specs[0]), *found]
    if not signature:
        return [
            tensors.from_numpy(str(name), np.asarray(value)) for name, value in by_name.items()
        ] + found
    _check_names([str(name) for name in by_name], [spec.name for spec in specs], "input")
    return [to_tensor(by_name[spec.name], spec) for spec in specs] + found


def to_tensor(data: Any, spec: TensorSpec) -> Tensor:
    """Returns the data as the tensor that `spec` describes; a spec without datatype keeps the
    data's own. Raises InvalidInput if they do not fit.
    """
    if is_frame(data):
        data = _ordered(data, list(spec.columns))
    array = _shaped(_as_array(data, spec.name), spec)
    if spec.datatype:
        array = _cast(array, spec)
    tensor = tensors.from_numpy(spec.name, array)
    if spec.datatype:
        tensors.check_against([tensor], [spec])
    return tensor


def from_tensors(outputs: Sequence[Tensor]) -> Any:
    """Returns one output as an array, several as a dict of arrays by name.

    Arrays may be written to. BYTES become str where all are UTF-8, else bytes.
    """
    arrays = {tensor.name: _from_tensor(tensor) for tensor in outputs}
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _from_tensor(tensor: Tensor) -> Array:
    array: Array = tensors.to_numpy(tensor)
    if tensor.datatype != "BYTES":
        # The message owns the memory, which is read-only.
        return array.copy()
    try:
        return np.array([item.decode() for item in array.flat], dtype=object).reshape(array.shape)
    except UnicodeDecodeError:
        return array


def _ordered(frame: Any, columns: list[str]) -> Any:
    if not columns:
        return frame
    frame = frame.rename(columns=str)
    _check_names(list(frame.columns), columns, "column")
    return frame[columns]


def _check_names(given: list[str], wanted: list[str], what: str) -> None:
    missing, extra = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    if missing or extra:
        problems = [f"{what}s missing: {', '.join(missing)}"] * bool(missing)
        problems += [f"{what}s the model does not take: {', '.join(extra)}"] * bool(extra)
        raise InvalidInput("; ".join(problems), missing=",".join(missing), extra=",".join(extra))


def _as_array(data: Any, name: str) -> Array:
    if hasattr(data, "detach"):  # a torch tensor
        data = data.detach().cpu()
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as exc:
        raise InvalidInput(
            f"input '{name}' is no array: its rows must all have the same length", tensor=name
        ) from exc
    if array.dtype.kind == "O" and array.size and not isinstance(array.flat[0], str | bytes):
        array = np.asarray(array.tolist())
    return array


def _shaped(array: Array, spec: TensorSpec) -> Array:
    """Returns the array in the shape of the spec; a single column may be given flat."""
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        return array.reshape(-1, 1)
    if array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1 and spec.datatype:
        return array.reshape(-1)
    if spec.datatype and array.ndim == len(spec.shape) - 1:
        raise InvalidInput(
            f"input '{spec.name}' has the shape {list(spec.shape)}, got {list(array.shape)}; "
            "put a single row in a list of its own, [row]",
            tensor=spec.name,
        )
    return array


def _cast(array: Array, spec: TensorSpec) -> Array:
    wanted = tensors.DTYPES.get(spec.datatype)
    if wanted is None:
        if array.dtype.kind in "OSU":
            return array
        raise InvalidInput(f"input '{spec.name}' takes text, got {array.dtype}", tensor=spec.name)
    if array.dtype == wanted:
        return array
    if not np.can_cast(array.dtype, wanted, casting="same_kind") and array.size:
        raise InvalidInput(
            f"input '{spec.name}' takes {spec.datatype} ({wanted}), got {array.dtype}; "
            f"convert it first if that is meant, such as with .astype('{wanted}')",
            tensor=spec.name,
            expected=spec.datatype,
        )
    cast = array.astype(wanted)
    if array.dtype.kind in "iu" and wanted.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidInput(
            f"input '{spec.name}' holds numbers beyond {spec.datatype}", tensor=spec.name
        )
    return cast
