"""Models of any size, one for each way of holding memory: single blocks, many small arrays, cycles
and the heaps of C++ libraries.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stellwerk.type.v1 import tensor_pb2

MB = 1_000_000
_TREES = 100
# What a tree grows by for a row that it is trained on: 1.26 nodes of 72 bytes.
_ROW_BYTES = 91


@dataclass(frozen=True, slots=True)
class Sample:
    """An artifact on disk, how it is stored, and one row of shape [1, columns] to call it with."""

    path: Path
    name: str
    format: str
    signature: list[tensor_pb2.MethodSignature]
    row: np.ndarray[Any, Any]
    options: dict[str, str] = field(default_factory=dict)


Make = Callable[[Path, str, int], Sample]


def ridge(folder: Path, name: str, size: int) -> Sample:
    """scikit-learn: one block of coefficients."""
    import skops.io
    from sklearn.linear_model import Ridge

    columns = _side(size, 8)
    model = Ridge()
    model.coef_ = np.random.default_rng(1).normal(size=(columns, columns))
    model.intercept_, model.n_features_in_ = np.zeros(columns), columns
    skops.io.dump(model, folder / name)
    return _sample(folder / name, "skops", "FP64", columns)


def forest(folder: Path, name: str, size: int) -> Sample:
    """scikit-learn: a hundred trees, as many as its forests have by default, each of a few arrays
    of its own.
    """
    import skops.io
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(2)
    count = max(4, size // (_TREES * _ROW_BYTES))
    rows = rng.normal(size=(count, 4))
    model = RandomForestRegressor(1, random_state=2).fit(rows, rng.normal(size=count))
    model.estimators_ = [copy.deepcopy(model.estimators_[0]) for _ in range(_TREES)]
    model.n_estimators = _TREES
    skops.io.dump(model, folder / name)
    return _sample(folder / name, "skops", "FP64", 4)


def onnx_graph(folder: Path, name: str, size: int) -> Sample:
    """ONNX: weights on onnxruntime's side."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    columns = _side(size, 4)
    weights = numpy_helper.from_array(
        np.random.default_rng(3).normal(size=(columns, columns)).astype("f4"), "w"
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])],
        [weights],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / name)
    return _sample(folder / name, "onnx", "FP32", columns)


def exported_program(folder: Path, name: str, size: int) -> Sample:
    """torch.export: a program that holds itself in cycles."""
    import torch

    columns = _side(size, 4)
    program = torch.export.export(
        torch.nn.Linear(columns, columns).eval(),
        (torch.zeros(2, columns),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    # torch warns of another suffix; the runtime names artifacts by their digest and does not care.
    name += ".pt2"
    torch.export.save(program, folder / name)
    return _sample(folder / name, "torch_export", "FP32", columns)


def weights(folder: Path, name: str, size: int) -> Sample:
    """safetensors: weights copied into a module."""
    import torch
    from safetensors.torch import save_file

    columns = _side(size, 4)
    save_file(torch.nn.Linear(columns, columns).state_dict(), folder / name)
    sample = _sample(folder / name, "torch_safetensors", "FP32", columns)
    sample.options["module"] = "torch.nn:Linear"
    sample.options["kwargs"] = f'{{"in_features": {columns}, "out_features": {columns}}}'
    return sample


KINDS: dict[str, Make] = {
    "skops-block": ridge,
    "skops-forest": forest,
    "onnx": onnx_graph,
    "torch-export": exported_program,
    "torch-safetensors": weights,
}


def _side(size: int, item_size: int) -> int:
    """Returns the side of the largest square matrix of at most `size` bytes, 4 at least."""
    return max(4, int((size / item_size) ** 0.5))


def _sample(path: Path, model_format: str, datatype: str, columns: int) -> Sample:
    spec = tensor_pb2.TensorSpec(name="X", datatype=datatype, shape=[-1, columns])
    signature = [tensor_pb2.MethodSignature(method="predict", inputs=[spec])]
    dtype = np.float64 if datatype == "FP64" else np.float32
    return Sample(path, path.stem, model_format, signature, np.zeros((1, columns), dtype))
