"""The conformance models as ONNX graphs, for Stellwerk and for any server that runs ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stellwerk.conformance.models.definitions import (
    MAGIC,
    MODELS,
    Behaviour,
    ConformanceModel,
    Spec,
)

# Opset 16 of 2022 is known to every onnxruntime since 1.11, and has Identity and Add for all our
# datatypes; IR version 8 belongs to it.
_OPSET, _IR_VERSION = 16, 8
_ELEMENTS = {
    "BOOL": "BOOL",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "FP16": "FLOAT16",
    "FP32": "FLOAT",
    "FP64": "DOUBLE",
    "BYTES": "STRING",
}


def graphs() -> dict[str, Any]:
    """Returns each model's key with its onnx.ModelProto.

    A graph answers once, so the decoupled one is not among them; nor is that of BF16, which
    onnxruntime takes no arrays of in Python, since numpy has no such type.
    """
    return {
        key: build(model)
        for key, model in MODELS.items()
        if not model.decoupled and all(spec.datatype in _ELEMENTS for spec in model.inputs)
    }


def write(folder: Path) -> list[str]:
    """Writes MODEL.onnx for each; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    found = graphs()
    for key, graph in found.items():
        (folder / f"{MODELS[key].name}.onnx").write_bytes(graph.SerializeToString())
    return [MODELS[key].name for key in found]


def build(model: ConformanceModel) -> Any:
    """Returns the graph of one model."""
    from onnx import checker, helper

    nodes, constants = _nodes(model)
    inputs, outputs = ([_value(spec) for spec in specs] for specs in (model.inputs, model.outputs))
    graph = helper.make_graph(nodes, model.name, inputs, outputs, initializer=constants)
    whole = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    checker.check_model(whole)
    return whole


def _nodes(model: ConformanceModel) -> tuple[list[Any], list[Any]]:
    from onnx import TensorProto, helper

    names = [spec.name for spec in model.inputs]
    outputs = [spec.name for spec in model.outputs]
    if model.behaviour is Behaviour.ADD_SUB:
        return [
            helper.make_node("Add", names, outputs[:1]),
            helper.make_node("Sub", names, outputs[1:]),
        ], []
    if model.behaviour is Behaviour.FAILS_ON_13:
        # Looking an element up among 0 … 12 echoes it, and is an error for 13.
        table = helper.make_tensor("TABLE", TensorProto.INT64, [MAGIC], list(range(MAGIC)))
        return [helper.make_node("Gather", ["TABLE", *names], outputs)], [table]
    return [helper.make_node("Identity", [a], [b]) for a, b in zip(names, outputs, strict=True)], []


def _value(spec: Spec) -> Any:
    from onnx import TensorProto, helper

    # Each size that may vary has a name of its own per place, so that all tensors of one call agree
    # on it.
    shape = [f"size{place}" if size < 0 else size for place, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(
        spec.name, getattr(TensorProto, _ELEMENTS[spec.datatype]), shape
    )
