"""scikit-learn models as skops files: no code in them runs, and only reviewed types are rebuilt."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import sklearn
import skops
import skops.io

from services.runtime.formats.estimator import METHODS, EstimatorModel
from services.runtime.formats.port import FormatSettings, signatures
from services.wire.errors import Corrupt, InvalidInput, UnsafeFormat
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2

# What scikit-learn's own estimators (1.9, each was dumped) hold beyond skops' defaults, looked at one by one.
# They rebuild themselves from numbers, or are functions of scikit-learn, numpy and scipy over arrays.
REVIEWED_TYPES = frozenset(
    {
        "numpy.dtype",
        "numpy.mean",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csr.csr_matrix",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.DotProduct",
        "sklearn.gaussian_process.kernels.Matern",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


class SkopsFormat:
    """skops files."""

    name = "skops"
    runs_code = False

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings

    def frameworks(self) -> dict[str, str]:
        found = {"scikit-learn": sklearn.__version__, "skops": skops.__version__}
        return {**found, "numpy": package_version("numpy")}

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        return ()

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> EstimatorModel:
        """Rebuilds the estimator. UnsafeFormat names the first type that was not reviewed."""
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - REVIEWED_TYPES)
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as exc:
            raise Corrupt("the artifact is not a skops file; store the model again with skops") from exc
        if unknown:
            raise UnsafeFormat(
                f"the skops file holds the type '{unknown[0][:128]}', which this runtime does not trust; "
                "store a model that is made of scikit-learn's own types",
                type=unknown[0][:128],
            )
        estimator: Any = skops.io.load(path, trusted=sorted(REVIEWED_TYPES))
        if not any(hasattr(estimator, method) for method in METHODS):
            raise InvalidInput(
                f"the skops file holds a {type(estimator).__name__}, not an estimator with a method to call"
            )
        return EstimatorModel(estimator, signatures(version), unpacked)
