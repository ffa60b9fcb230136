"""Packages scikit-learn estimators as skops files, which hold data and known types but no code.

The signature is found by calling the estimator on the example, or on a row of zeros without one.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from stellwerk.client.arrays import is_frame
from stellwerk.client.errors import Corrupt, InvalidInput, UnsafeFormat
from stellwerk.client.packaging.artifact import Package, spec_of
from stellwerk.type.v1.tensor_pb2 import MethodSignature, TensorSpec

METHODS = ("predict", "predict_proba", "predict_log_proba", "transform", "decision_function")
INPUT, TARGET = "X", "y"
# Parts of scikit-learn for its own tests and for other libraries; no model needs them.
_NO_MODELS = ("sklearn.externals.", "sklearn.utils._testing", "sklearn.tests")


def package(estimator: Any, folder: Path, *, example: Any = None) -> Package:
    """Writes a fitted estimator into the folder and returns its package. Raises InvalidInput if it
    is not fitted, or not made of scikit-learn's own types.
    """
    try:
        check_is_fitted(estimator)
    except NotFittedError as exc:
        raise InvalidInput(
            f"the {type(estimator).__name__} is not fitted yet; call its fit method first"
        ) from exc
    except TypeError as exc:
        raise InvalidInput(
            f"a {type(estimator).__name__} is no estimator that can be stored"
        ) from exc
    path = folder / "model.skops"
    skops.io.dump(estimator, path)
    foreign = _foreign_types(path)
    if foreign:
        raise InvalidInput(
            f"the model holds the type {foreign[0]}, which is not scikit-learn's own; "
            "build it of scikit-learn's types, or export it to ONNX",
            type=foreign[0],
        )
    return Package(
        "skops", path, signature_of(estimator, example), {"scikit-learn": sklearn.__version__}
    )


def package_file(path: Path, *, example: Any = None) -> Package:
    """Returns the package of a skops file. Raises UnsafeFormat for foreign types, Corrupt for a
    file that is none.
    """
    return Package("skops", path, signature_of(load(path), example))


def load(path: Path) -> Any:
    """Returns the estimator in a skops file. Raises UnsafeFormat if the file holds types other than
    scikit-learn's own, Corrupt if it is no skops file.
    """
    foreign = _foreign_types(path)
    if foreign:
        raise UnsafeFormat(
            f"the file holds the type {foreign[0]}, which is not trusted; it was not loaded",
            type=foreign[0],
        )
    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def signature_of(estimator: Any, example: Any = None) -> list[MethodSignature]:
    """Returns the inputs and outputs of each method that can be called with the example.

    Raises InvalidInput if none can, or if only an example would tell the inputs.
    """
    sample = _zeros(estimator) if example is None else _named(example)
    inputs = list(_input_specs(sample))
    found, failure = [], None
    for method in METHODS:
        if not hasattr(estimator, method):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = getattr(estimator, method)(sample)
        except Exception as exc:  # the model's own code may raise anything
            failure = failure or exc
            continue
        found.append(
            MethodSignature(method=method, inputs=inputs, outputs=_output_specs(method, answer))
        )
    if not found:
        hint = (
            "give example=, a few rows like those it was fitted on"
            if example is None
            else "is the example right?"
        )
        raise InvalidInput(
            f"the model could not be called to see what it takes and gives; {hint}"
        ) from failure
    predict = next((entry for entry in found if entry.method == "predict"), None)
    if (
        predict is not None
        and len(predict.outputs) == 1
        and (is_classifier(estimator) or is_regressor(estimator))
    ):
        found.append(_score_signature(inputs, predict.outputs[0]))
    return found


def _foreign_types(path: Path) -> list[str]:
    try:
        return [
            name for name in skops.io.get_untrusted_types(file=path) if not _is_sklearn_class(name)
        ]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as exc:
        raise Corrupt("this is no skops file, or not a whole one") from exc


def _is_sklearn_class(name: str) -> bool:
    """Returns whether the name is that of a class: a function would be called with arguments from
    the file.
    """
    module, _, attribute = name.rpartition(".")
    if not name.startswith("sklearn.") or name.startswith(_NO_MODELS):
        return False
    try:
        return isinstance(getattr(__import__(module, fromlist=[attribute]), attribute, None), type)
    except ImportError:
        return False


def _zeros(estimator: Any) -> Any:
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise InvalidInput(
            "the model does not say what it takes; give example=, a few rows like those it was"
            " fitted on"
        )
    names = getattr(estimator, "feature_names_in_", None)
    sample = np.zeros((1, int(width)))
    if names is None:
        return sample
    import pandas as pd

    return pd.DataFrame(sample, columns=list(names))


def _named(example: Any) -> Any:
    if is_frame(example):
        return example
    return example if hasattr(example, "toarray") else np.asarray(example)


def _input_specs(sample: Any) -> Iterator[TensorSpec]:
    """Yields one input for an array or a table of numbers, one for each column of a table with text
    in it.
    """
    if not is_frame(sample):
        yield spec_of(INPUT, sample.toarray() if hasattr(sample, "toarray") else sample)
        return
    columns = [str(name) for name in sample.columns]
    kinds = {
        np.dtype(dtype).kind if isinstance(dtype, np.dtype) else "O" for dtype in sample.dtypes
    }
    if kinds <= set("fiub"):
        yield spec_of(INPUT, sample.to_numpy(), columns)
        return
    for name, label in zip(columns, sample.columns, strict=True):
        yield spec_of(name, sample[label].to_numpy().reshape(-1, 1))


def _output_specs(method: str, answer: Any) -> list[TensorSpec]:
    if isinstance(answer, list):
        # A classifier of several targets answers with an array for each.
        return [spec_of(f"{method}_{index}", np.asarray(part)) for index, part in enumerate(answer)]
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    return [
        spec_of(method, answer.to_numpy() if hasattr(answer, "to_numpy") else np.asarray(answer))
    ]


def _score_signature(inputs: list[TensorSpec], predicted: TensorSpec) -> MethodSignature:
    target = TensorSpec(name=TARGET, datatype=predicted.datatype, shape=predicted.shape)
    score = TensorSpec(name="score", datatype="FP64", shape=[1])
    return MethodSignature(method="score", inputs=[*inputs, target], outputs=[score])
