"""Chooses the packager of a model.

For an object it is chosen by the modules that its class and its bases come from, for a file by its
ending, so that no framework is imported needlessly.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stellwerk.client.errors import InvalidInput, UnsafeFormat
from stellwerk.client.packaging.artifact import Package

# First part of the name of a class's module → packager, the most special library first: a torch
# module may wrap scikit-learn.
_BY_LIBRARY = {
    "onnx": "onnx_model",
    "torch": "torch_export",
    "sklearn": "estimator",
}
_BY_FORMAT = {"skops": "estimator", "onnx": "onnx_model", "torch_export": "torch_export"}
_FORMAT_BY_ENDING = {
    ".skops": "skops",
    ".onnx": "onnx",
    ".pt2": "torch_export",
    ".safetensors": "torch_safetensors",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
}
# Packagers that describe a file of a format; files of other formats are stored without a signature.
_OF_FILES = {"skops": "estimator", "onnx": "onnx_model", "torch_export": "pt2"}
# Packager → the extra of this package that installs its libraries.
_EXTRAS = {
    "estimator": "sklearn",
    "onnx_model": "onnx",
    "torch_export": "torch",
    "pickled": "unsafe",
}
# Formats in which a hostile file makes the framework's own loader run code.
_NEED_TRUST = ("torch_export",)


def package(
    model: Any,
    folder: Path,
    *,
    example: Any = None,
    format: str | None = None,
    unsafe: bool = False,
) -> Package:
    """Writes the model's artifact into the folder and returns its package; a model that is a path
    is packaged where it lies.

    Raises InvalidInput for a model that cannot be stored, UnsafeFormat for a pickle without
    `unsafe`.
    """
    if isinstance(model, str | Path):
        return _package_file(Path(model), example, format, unsafe)
    packed: Package
    if format == "pickle":
        _check_pickle_allowed(format, unsafe)
        packed = _module("pickled").package(model, folder, example=example)
    else:
        packed = _module(_packager(model)).package(model, folder, example=example)
    return packed


def file_name(format: str) -> str:
    """Returns the name of an artifact of this format; torch's loader looks at the ending."""
    return "model.pt2" if format == "torch_export" else f"model.{format}"


def load(path: Path, format: str, unsafe: bool = False) -> Any:
    """Returns the model in an artifact. Raises InvalidInput for a format that is not loaded here,
    UnsafeFormat if loading could run code in the file and `unsafe` is not given.
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


def _check_pickle_allowed(format: str | None, unsafe: bool) -> None:
    """Raises UnsafeFormat unless both `format="pickle"` and `unsafe` were given."""
    if format != "pickle" or not unsafe:
        raise UnsafeFormat(
            "a pickle runs code when it is loaded; store the model as skops or ONNX, "
            'or say format="pickle", unsafe=True'
        )


def _package_file(path: Path, example: Any, format: str | None, unsafe: bool) -> Package:
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}", path=str(path))
    kind = format or _FORMAT_BY_ENDING.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(
            f"the ending of {path.name} tells no format; give format=", path=path.name
        )
    if kind == "pickle":
        _check_pickle_allowed(format, unsafe)
    if kind not in _OF_FILES:
        return Package(kind, path)
    packed: Package = _module(_OF_FILES[kind]).package_file(path, example=example)
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


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"stellwerk.client.packaging.{name}")
    except ModuleNotFoundError as exc:
        raise InvalidInput(
            f"this needs the package {exc.name}: pip install 'stellwerk[{_EXTRAS[name]}]'",
            package=exc.name,
        ) from exc
