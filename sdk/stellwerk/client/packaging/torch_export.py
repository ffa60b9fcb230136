"""PyTorch modules as torch.export programs (.pt2): the graph and its weights, without the module's Python code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging.artifact import Package
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

_DATATYPES = {
    torch.bool: "BOOL",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.uint8: "UINT8",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def package(model: Any, folder: Path, *, example: Any = None) -> Package:
    """Stores a module, exported with its example inputs, or a program that is exported already."""
    program = model if isinstance(model, ExportedProgram) else _export(model, example)
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return _describe(program, path)


def package_file(path: Path) -> Package:
    """The package of a .pt2 file."""
    return _describe(load(path), path)


def load(path: Path) -> ExportedProgram:
    """The exported program."""
    try:
        return torch.export.load(path)
    except (RuntimeError, ValueError, KeyError) as exc:
        raise InvalidInput("the file is no torch.export program of a version that this torch knows") from exc


def _describe(program: ExportedProgram, path: Path) -> Package:
    return Package("torch_export", path, [signature_of(program)], {"torch": torch.__version__})


def _export(module: Any, example: Any) -> ExportedProgram:
    if not isinstance(module, torch.nn.Module):
        raise InvalidInput(f"a {type(module).__name__} cannot be stored; give a torch.nn.Module or an ExportedProgram")
    if example is None:
        raise InvalidInput("a torch module is exported by running it; give example=, an input with its batch dimension")
    inputs = tuple(_batch_of_two(part) for part in (example if isinstance(example, tuple) else (example,)))
    rows = Dim("rows")
    was_training = module.training
    module.eval()
    try:
        return torch.export.export(module, inputs, dynamic_shapes=[{0: rows} for _ in inputs])
    except Exception as exc:  # the module's own code and torch's compiler raise what they like
        raise InvalidInput(
            "torch.export cannot export this module for batches of any size; "
            "export it yourself and store the ExportedProgram"
        ) from exc
    finally:
        module.train(was_training)


def _batch_of_two(part: Any) -> torch.Tensor:
    """An example of one row is given twice: torch.export takes a dimension of 1 for a fixed one."""
    tensor = torch.as_tensor(part)
    if tensor.ndim == 0:
        raise InvalidInput("the example needs a batch dimension; give a batch of rows")
    return tensor if tensor.shape[0] > 1 else torch.cat([tensor, tensor])


def signature_of(program: ExportedProgram) -> MethodSignature:
    """What the program takes and gives, read from its graph."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = program.graph_signature.user_outputs
    names = ["output"] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]
    return MethodSignature(
        method="predict",
        inputs=[_spec(str(name), values.get(str(name))) for name in program.graph_signature.user_inputs],
        outputs=[_spec(name, values.get(str(node))) for name, node in zip(names, outputs, strict=True)],
    )


def _spec(name: str, value: Any) -> TensorSpec:
    dtype: Any = getattr(value, "dtype", None)
    datatype = _DATATYPES.get(dtype)
    if datatype is None:
        raise InvalidInput(f"'{name}' of the program is not a tensor of a known type; take and give tensors only")
    return TensorSpec(
        name=name, datatype=datatype, shape=[size if isinstance(size, int) else -1 for size in value.shape]
    )
