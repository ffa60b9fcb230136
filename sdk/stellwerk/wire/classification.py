"""The classification extension of the Open Inference Protocol: an output as its k best classes.

Each class is the text "value:index", best first. The output becomes BYTES of shape [rows, k], or
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
    """Returns the outputs, with those in `wanted` as their k best classes.

    `wanted` maps names of outputs to their k. Raises InvalidInput for an output without classes.
    """
    return [
        best(tensor, wanted[tensor.name]) if tensor.name in wanted else tensor for tensor in outputs
    ]


def best(tensor: tensor_pb2.Tensor, count: int) -> tensor_pb2.Tensor:
    """Returns the `count` best classes along the tensor's last dimension, all if it has fewer.

    Raises InvalidInput for BYTES, BOOL and tensors without elements in that dimension.
    """
    if tensor.datatype in ("BYTES", "BOOL") or not tensor.shape or not tensor.shape[-1]:
        raise InvalidInput(
            f"output '{tensor.name}' of {tensor.datatype} has no classes to choose from",
            tensor=tensor.name,
        )
    scores = tensors.to_numpy(tensor)
    rows = scores.reshape(-1, scores.shape[-1]) if scores.ndim > 1 else scores.reshape(1, -1)
    count = min(count, rows.shape[1])
    # A stable sort keeps the first of equals first. The rows are reversed before and after it,
    # because unsigned numbers cannot be negated for a descending order.
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
