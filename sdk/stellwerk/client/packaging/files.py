"""Models that lie in a file already: the format is that of the ending, unless it is said."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging.artifact import Package

_BY_ENDING = {
    ".skops": "skops",
    ".onnx": "onnx",
    ".pt2": "torch_export",
    ".safetensors": "torch_safetensors",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
}


def package(
    path: Path, *, example: Any = None, format: str | None = None, unsafe: bool = False
) -> Package:
    """The package of a file; it is not copied. Raises InvalidInput if it is missing or its format
    not known.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}", path=str(path))
    kind = format or _BY_ENDING.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(
            f"the ending of {path.name} tells no format; give format=", path=path.name
        )
    if kind == "skops":
        estimator = importlib.import_module("stellwerk.client.packaging.estimator")
        return Package("skops", path, estimator.signature_of(estimator.load(path), example))
    if kind == "onnx":
        return _of_file("onnx_model", path)
    if kind == "torch_export":
        return _of_file("pt2", path)
    if kind == "pickle":
        _module("pickled").check_allowed(format, unsafe)
    return Package(kind, path)


def _of_file(module: str, path: Path) -> Package:
    package: Package = _module(module).package_file(path)
    return package


def _module(name: str) -> Any:
    return importlib.import_module(f"stellwerk.client.packaging.{name}")
