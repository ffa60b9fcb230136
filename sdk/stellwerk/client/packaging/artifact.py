"""A model that is ready to be stored, and the descriptions of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Package:
    """An artifact with its format, its signature and facts for people."""

    format: str
    path: Path
    signature: Sequence[MethodSignature] = ()
    # Such as the version of the library that made it.
    metadata: dict[str, str] = field(default_factory=dict)


def spec_of(name: str, array: npt.NDArray[np.generic], columns: Sequence[str] = ()) -> TensorSpec:
    """Returns the spec of arrays of this dtype and shape with any number of rows. Raises
    InvalidInput for a dtype that no tensor has.
    """
    # Imported here, so that the command's --help does not wait for numpy.
    from stellwerk.wire import tensors

    text = array.dtype.kind in "OSU"
    datatype = "BYTES" if text else tensors.DATATYPES.get(array.dtype.newbyteorder("<"), "")
    if not datatype:
        raise InvalidInput(
            f"'{name}' has the type {array.dtype}, which no tensor can carry", tensor=name
        )
    shape = (-1, *array.shape[1:]) if array.ndim else (1,)
    return TensorSpec(name=name, datatype=datatype, shape=shape, columns=columns)
