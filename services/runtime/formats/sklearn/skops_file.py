"""scikit-learn models as skops files: no code in them runs, and only reviewed types are rebuilt."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

from services.runtime.formats.port import signatures
from services.runtime.formats.sklearn.estimator import METHODS, EstimatorModel
from services.runtime.formats.sklearn.withheld import withheld
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt, InvalidInput, Overloaded, UnsafeFormat

# skops lists scikit-learn's estimators by walking through its packages, and one of those imports
# torch: two hundred megabytes and a second that no scikit-learn model needs.
with withheld("sklearn.externals.array_api_compat.torch"):
    import skops.io

# What scikit-learn's estimators hold beyond skops' defaults and scikit-learn's own classes:
# functions over arrays and containers of numbers. Each estimator of 1.9 was dumped, each of these
# types looked at.
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
# Parts of scikit-learn that are there for its tests and for other libraries; importing them is no
# business of a model.
_NO_MODELS = (
    "sklearn.externals.",
    "sklearn.conftest",
    "sklearn.tests.",
    "sklearn.utils._testing",
    "sklearn.datasets.",
)


def load(path: Path, version: repository_pb2.ModelVersion, memory_bytes: int) -> EstimatorModel:
    """Rebuilds the estimator. UnsafeFormat names the first type that was not reviewed, Corrupt is
    no skops file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > memory_bytes:  # a small file can hold any number of zeros
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
    """Whether a type may be rebuilt: one that was reviewed, or a class of scikit-learn's own
    models.

    A class, not a function: skops rebuilds objects from their state, while a function could be
    called with arguments that the file chooses. Nothing is imported but modules of scikit-learn,
    which the process has loaded anyway.
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
