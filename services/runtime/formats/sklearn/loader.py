"""Rebuilds scikit-learn models from skops files. No code in them runs; only reviewed types are
rebuilt.
"""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from services.runtime.formats.port import signatures
from services.runtime.formats.sklearn.model import METHODS, EstimatorModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt, InvalidInput, Overloaded, UnsafeFormat


class _Withholder(MetaPathFinder):
    """Keeps the import system from finding one module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for the withheld module; leaves others to other finders."""
        if fullname == self._module:
            raise ModuleNotFoundError(f"{fullname} is not imported now", name=fullname)
        return None


@contextmanager
def withheld(module: str) -> Iterator[None]:
    """Makes imports of `module` fail as if it were not installed, unless it is imported already."""
    finder = _Withholder(module)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


# skops walks through scikit-learn's packages to list estimators, and one of them imports torch:
# 200 MB and a second that no scikit-learn model needs.
with withheld("sklearn.externals.array_api_compat.torch"):
    import skops.io

# Types in scikit-learn's estimators that skops does not know: functions over arrays, and containers
# of numbers. Found by dumping each estimator of scikit-learn 1.9, then reviewed.
REVIEWED_TYPES = frozenset(
    {
        "numpy.dtype",
        "numpy.mean",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csr.csr_matrix",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
    }
)
# Packages of scikit-learn for its tests and for other libraries; no model needs to import them.
_NO_MODELS = (
    "sklearn.externals.",
    "sklearn.conftest",
    "sklearn.tests.",
    "sklearn.utils._testing",
    "sklearn.datasets.",
)


def load(path: Path, version: repository_pb2.ModelVersion, memory_bytes: int) -> EstimatorModel:
    """Returns the estimator in the file, which may unpack to at most `memory_bytes`.

    Raises UnsafeFormat for a type that is not trusted, Corrupt for another kind of file, Overloaded
    if it unpacks to more, InvalidInput if it holds no estimator.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > memory_bytes:
            # A small file can unpack to any number of zeros.
            raise Overloaded(
                f"the model unpacks to {unpacked} bytes, more than the {memory_bytes} that this"
                " runtime has for models",
                needed_bytes=unpacked,
                capacity_bytes=memory_bytes,
            )
        held = skops.io.get_untrusted_types(file=path)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as exc:
        raise Corrupt("the artifact is not a skops file; store the model again with skops") from exc
    unknown = [name for name in held if not is_trusted(name)]
    if unknown:
        raise UnsafeFormat(
            f"the skops file holds the type '{unknown[0][:128]}', which this runtime does not"
            " trust; store a model that is made of scikit-learn's own types",
            type=unknown[0][:128],
        )
    estimator: Any = skops.io.load(path, trusted=held)
    if not any(hasattr(estimator, method) for method in METHODS):
        raise InvalidInput(
            f"the skops file holds a {type(estimator).__name__}, not an estimator with a method to"
            " call"
        )
    return EstimatorModel(estimator, signatures(version), unpacked)


def is_trusted(name: str) -> bool:
    """Returns whether a type may be rebuilt: a reviewed one, or a class of scikit-learn's models.

    Functions are not trusted: skops rebuilds an object from its state, but a function could be
    called with arguments that the file chooses. Imports no modules but scikit-learn's.
    """
    if name in REVIEWED_TYPES:
        return True
    module, _, attribute = name.rpartition(".")
    if not name.startswith("sklearn.") or name.startswith(_NO_MODELS) or ".tests." in name:
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("sklearn.")
