"""A model ready to be stored, and the descriptions of tensors that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec
from stellwerk.wire import tensors


@dataclass(frozen=True, slots=True)
class Package:
    """An artifact and what is said about it."""

    format: str
    path: Path
    signature: Sequence[MethodSignature] = ()
    # Facts for people, such as the versions it was made with.
    metadata: dict[str, str] = field(default_factory=dict)


def spec_of(name: str, array: npt.NDArray[np.generic], columns: Sequence[str] = ()) -> TensorSpec:
    """The spec of arrays like this one, with any number of rows."""
    text = array.dtype.kind in "OSU"
    datatype = "BYTES" if text else tensors.DATATYPES.get(array.dtype.newbyteorder("<"), "")
    if not datatype:
        raise InvalidInput(
            f"'{name}' has the type {array.dtype}, which no tensor can carry", tensor=name
        )
    shape = (-1, *array.shape[1:]) if array.ndim else (1,)
    return TensorSpec(name=name, datatype=datatype, shape=shape, columns=columns)
