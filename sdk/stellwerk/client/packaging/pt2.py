"""Packages torch.export archives (.pt2). They are described from the JSON in them and never loaded,
since torch's loader can run code.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging.artifact import Package
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

_PROGRAM = "models/model.json"
# The numbers of datatypes in an archive: torch._export.serde.schema.ScalarType.
_DATATYPES = {
    1: "UINT8",
    2: "INT8",
    3: "INT16",
    4: "INT32",
    5: "INT64",
    6: "FP16",
    7: "FP32",
    8: "FP64",
    12: "BOOL",
    13: "BF16",
    28: "UINT16",
    34: "UINT32",
    35: "UINT64",
}


def package_file(path: Path, *, example: Any = None) -> Package:
    """Returns the package of a file that torch.export.save wrote; the example is not needed. Raises
    InvalidInput if the file is something else.
    """
    try:
        program = _program(path)
        signature = _signature(program["graph_module"])
        torch_version = str(program.get("torch_version", ""))
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidInput(
            "the file is no archive of torch.export.save from torch 2.8 or later"
        ) from exc
    return Package(
        "torch_export", path, [signature], {"torch": torch_version} if torch_version else {}
    )


def _program(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        name = next(
            name for name in [*archive.namelist(), ""] if name.endswith(_PROGRAM) or not name
        )
        program: dict[str, Any] = json.loads(archive.read(name))
    return program


def _signature(graph_module: dict[str, Any]) -> MethodSignature:
    values = graph_module["graph"]["tensor_values"]
    specs = graph_module["signature"]
    inputs = [spec["user_input"]["arg"] for spec in specs["input_specs"] if "user_input" in spec]
    outputs = [
        spec["user_output"]["arg"] for spec in specs["output_specs"] if "user_output" in spec
    ]
    names = (
        ["output"] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]
    )
    return MethodSignature(
        method="predict",
        inputs=[_spec(_tensor(arg), values) for arg in inputs],
        outputs=[
            _spec(_tensor(arg), values, name) for name, arg in zip(names, outputs, strict=True)
        ],
    )


def _tensor(argument: dict[str, Any]) -> str:
    if "as_tensor" not in argument:
        raise InvalidInput(
            "the program takes or gives something that is no tensor; export a module of tensors"
            " only"
        )
    return str(argument["as_tensor"]["name"])


def _spec(tensor: str, values: dict[str, Any], name: str = "") -> TensorSpec:
    value = values[tensor]
    datatype = _DATATYPES.get(value["dtype"])
    if datatype is None:
        raise InvalidInput(
            f"'{tensor}' of the program has a datatype that no tensor of the platform has"
        )
    shape = [size.get("as_int", -1) for size in value["sizes"]]
    return TensorSpec(name=name or tensor, datatype=datatype, shape=shape)
