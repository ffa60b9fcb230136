"""The classification extension of the Open Inference Protocol: an output as the k best of its
classes.

Each class is the text "value:index", best first; the output becomes BYTES of shape [rows, k], or
[k] for an output without a dimension of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput


def apply(
    outputs: Sequence[tensor_pb2.Tensor], wanted: Mapping[str, int]
) -> list[tensor_pb2.Tensor]:
    """The outputs, those in `wanted` as their k best classes. Raises InvalidInput for what cannot
    be ordered.
    """
    return [
        best(tensor, wanted[tensor.name]) if tensor.name in wanted else tensor for tensor in outputs
    ]


def best(tensor: tensor_pb2.Tensor, count: int) -> tensor_pb2.Tensor:
    """The tensor's `count` best classes along its last dimension; all of them if it has fewer."""
    if tensor.datatype in ("BYTES", "BOOL") or not tensor.shape or not tensor.shape[-1]:
        raise InvalidInput(
            f"output '{tensor.name}' of {tensor.datatype} has no classes to choose from",
            tensor=tensor.name,
        )
    scores = tensors.to_numpy(tensor)
    rows = scores.reshape(-1, scores.shape[-1]) if scores.ndim > 1 else scores.reshape(1, -1)
    count = min(count, rows.shape[1])
    # Stable, so that of equals the first comes first; sorted upside down, because unsigned numbers
    # have no negative.
    order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    form = "f" if scores.dtype.kind == "f" else "d"
    texts = [
        f"{row[index]:{form}}:{index}".encode()
        for row, chosen in zip(rows, order, strict=True)
        for index in chosen
    ]
    leading = list(tensor.shape[:-1]) if len(tensor.shape) > 1 else []
    return tensor_pb2.Tensor(
        name=tensor.name, datatype="BYTES", shape=[*leading, count], data=tensors.join_bytes(texts)
    )
