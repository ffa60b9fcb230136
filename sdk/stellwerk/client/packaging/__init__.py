"""Objects to artifacts and back: which format a model is stored in, what it takes and gives, how it
is loaded again.

A packager is chosen by the modules an object's class comes from, so that no framework is imported
needlessly.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellwerk.client.errors import InvalidInput, UnsafeFormat

if TYPE_CHECKING:
    from stellwerk.client.packaging.artifact import Package

# By the first part of the module of a class, most special first. A class counts with its bases.
_BY_LIBRARY = {
    "onnx": "onnx_model",
    "torch": "torch_export",
    "sklearn": "estimator",
}
_BY_FORMAT = {"skops": "estimator", "onnx": "onnx_model", "torch_export": "torch_export"}
# A hostile file of these makes the framework's own loader run code.
_NEED_TRUST = ("torch_export",)


def package(
    model: Any,
    folder: Path,
    *,
    example: Any = None,
    format: str | None = None,
    unsafe: bool = False,
) -> Package:
    """Writes the model's artifact into the folder. Raises InvalidInput that says what is missing or
    not possible.
    """
    packed: Package
    if isinstance(model, str | Path):
        packed = _module("files").package(
            Path(model), example=example, format=format, unsafe=unsafe
        )
    elif format == "pickle":
        packed = _module("pickled").package(model, folder, example=example, unsafe=unsafe)
    else:
        packed = _module(_packager(model)).package(model, folder, example=example)
    return packed


def _packager(model: Any) -> str:
    libraries = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    name = next((name for library, name in _BY_LIBRARY.items() if library in libraries), None)
    if name is not None:
        return name
    raise InvalidInput(
        f"a {type(model).__name__} of {type(model).__module__} has no safe format here; "
        "store a scikit-learn estimator, a torch module or an ONNX model, or export it to ONNX",
        type=type(model).__name__,
    )


def file_name(format: str) -> str:
    """What a file of this format is called; torch's loader looks at the ending."""
    return "model.pt2" if format == "torch_export" else f"model.{format}"


def load(path: Path, format: str, unsafe: bool = False) -> Any:
    """The model in an artifact. Raises UnsafeFormat where that could run code in it and `unsafe` is
    not said.
    """
    name = _BY_FORMAT.get(format)
    if name is None:
        raise InvalidInput(
            f"a model of the format {format} is not loaded here; get its file with download()",
            format=format,
        )
    if format in _NEED_TRUST and not unsafe:
        raise UnsafeFormat(
            f"loading a {format} file can run code in it; say unsafe=True if you trust whoever"
            " stored the model, or get the file with download()",
            format=format,
        )
    return _module(name).load(path)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"stellwerk.client.packaging.{name}")
    except ModuleNotFoundError as exc:
        raise InvalidInput(
            f"this needs the package {exc.name}; install it first", package=exc.name
        ) from exc
