"""scikit-learn models: shapes are kept, names are honoured, and nothing hostile is rebuilt."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from services.runtime.formats.port import FormatSettings, LoadedModel
from services.runtime.formats.sklearn.loader import is_trusted
from services.runtime.formats.sklearn.plugin import SkopsFormat
from stellwerk.wire.errors import Corrupt, InvalidInput, Overloaded, UnsafeFormat
from tests.fakes import models

FORMAT = SkopsFormat(FormatSettings())
X = models.spec("X", "FP64", -1, 4)
Y = models.spec("y", "INT64", -1)


def load(estimator: Any, directory: Path, *signature: Any) -> LoadedModel:
    path = models.save_skops(estimator, directory / "model.skops")
    return FORMAT.load(path, models.version("skops", *signature), "auto")


@pytest.mark.parametrize(
    "name", ["predict", "predict_proba", "decision_function", "predict_log_proba"]
)
def test_an_answer_has_the_values_and_the_shape_of_the_local_model(
    tmp_path: Path, name: str
) -> None:
    pipeline, features, _ = models.iris_pipeline()
    model = load(pipeline, tmp_path, models.method(name, [X], []))

    answer = model.call(name, {"X": features[:7]})

    np.testing.assert_allclose(
        answer[name], getattr(pipeline, name)(features[:7]), rtol=0, atol=1e-12
    )


def test_transform_keeps_rows_and_columns(tmp_path: Path) -> None:
    pipeline, features, _ = models.iris_pipeline()
    model = load(pipeline[0], tmp_path)

    assert model.call("transform", {"X": features})["transform"].shape == (150, 4)


def test_regression_on_several_targets_stays_n_by_c(tmp_path: Path) -> None:
    features = np.arange(12.0).reshape(6, 2)
    regression = LinearRegression().fit(
        features, np.stack([features[:, 0], features.sum(axis=1)], axis=1)
    )
    model = load(regression, tmp_path)

    assert model.call("predict", {"X": features[:1]})["predict"].shape == (1, 2)


def test_score_compares_with_the_target(tmp_path: Path) -> None:
    pipeline, features, labels = models.iris_pipeline()
    model = load(pipeline, tmp_path, models.method("score", [X, Y], []))

    answer = model.call("score", {"X": features, "y": labels.reshape(-1, 1)})

    assert answer["score"].shape == (1,)
    assert answer["score"][0] == pipeline.score(features, labels)


def test_score_without_a_target_says_what_is_missing(tmp_path: Path) -> None:
    pipeline, features, _ = models.iris_pipeline()
    model = load(pipeline, tmp_path)

    with pytest.raises(InvalidInput, match="target"):
        model.call("score", {"X": features})


def test_a_scalar_score_is_given_where_one_was_declared(tmp_path: Path) -> None:
    pipeline, features, labels = models.iris_pipeline()
    model = load(
        pipeline, tmp_path, models.method("score", [X, Y], [models.spec("accuracy", "FP64")])
    )

    assert model.call("score", {"X": features, "y": labels})["accuracy"].shape == ()


def test_text_labels_come_back_as_text(tmp_path: Path) -> None:
    features, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[labels]
    model = load(LogisticRegression(max_iter=500).fit(features, names), tmp_path)

    assert list(model.call("predict", {"X": features[:1]})["predict"]) == ["setosa"]


def test_text_goes_in_as_text(tmp_path: Path) -> None:
    texts = ["good fine", "bad poor", "fine good", "poor bad"]
    pipeline = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, [1, 0, 1, 0])
    model = load(pipeline, tmp_path)
    given = np.array([b"good", b"poor"], dtype=object)

    assert list(model.call("predict", {"text": given})["predict"]) == [1, 0]


def test_named_columns_are_given_without_a_warning(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.0, 1, 2, 3], "b": [1.0, 0, 1, 0]})
    regression = LinearRegression().fit(frame, [0, 1, 2, 3])
    signature = models.method("predict", [models.spec("X", "FP64", -1, 2, columns=("a", "b"))], [])
    model = load(regression, tmp_path, signature)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = model.call("predict", {"X": frame.to_numpy()})

    np.testing.assert_allclose(answer["predict"], [0, 1, 2, 3], atol=1e-12)


def test_one_input_per_column_makes_a_frame_in_the_signatures_order(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.0, 1, 2, 3], "b": [5.0, 0, 1, 0]})
    regression = LinearRegression().fit(frame, frame["a"] * 10)
    signature = models.method(
        "predict", [models.spec("a", "FP64", -1, 1), models.spec("b", "FP64", -1, 1)], []
    )
    model = load(regression, tmp_path, signature)
    columns = {"b": np.array([[9.0], [9.0]]), "a": np.array([[1.0], [2.0]])}

    np.testing.assert_allclose(model.call("predict", columns)["predict"], [10, 20], atol=1e-9)


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.0, 1], "b": [5.0, 0]})
    model = load(LinearRegression().fit(frame, [1, 2]), tmp_path)

    with pytest.raises(InvalidInput, match="same number of rows"):
        model.call("predict", {"a": np.zeros(2), "b": np.zeros(3)})


@pytest.mark.parametrize("name", ["fit", "__class__", "predict_proba"])
def test_only_methods_that_the_estimator_has_are_called(tmp_path: Path, name: str) -> None:
    model = load(LinearRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path)

    with pytest.raises(InvalidInput, match="it has predict"):
        model.call(name, {"X": np.zeros((1, 1))})


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(5),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        MLPClassifier((4,), max_iter=20),
        SVC(),
        CalibratedClassifierCV(LogisticRegression(max_iter=200)),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_estimators_are_trusted(tmp_path: Path, estimator: Any) -> None:
    features, labels = load_iris(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(features, labels)
    model = load(estimator, tmp_path)

    np.testing.assert_array_equal(
        model.call("predict", {"X": features})["predict"], estimator.predict(features)
    )


class Hostile:
    """Rebuilding one runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def predict(self, features: Any) -> Any:
        return features

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_type_that_was_not_reviewed_is_refused_by_name(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "model.skops"
    skops.io.dump(Hostile(f"touch {canary}"), path)

    with pytest.raises(UnsafeFormat, match=r"system|Hostile"):
        FORMAT.load(path, models.version("skops"), "auto")

    assert not canary.exists()


def test_a_function_hidden_in_a_transformer_is_refused(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    path = models.save_skops(FunctionTransformer(os.system), tmp_path / "model.skops")

    with pytest.raises(UnsafeFormat, match="system"):
        FORMAT.load(path, models.version("skops"), "auto")


def test_a_pickle_that_calls_itself_skops_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Hostile(f"touch {canary}")))

    with pytest.raises(Corrupt, match="not a skops file"):
        FORMAT.load(path, models.version("skops"), "auto")

    assert not canary.exists()


def test_a_file_that_unpacks_to_more_than_all_memory_is_not_unpacked(tmp_path: Path) -> None:
    bomb = LinearRegression().fit([[0.0], [1.0]], [0, 1])
    bomb.zeros_ = np.zeros(2_000_000)
    path = tmp_path / "model.skops"
    skops.io.dump(bomb, path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000

    with pytest.raises(Overloaded, match="unpacks to"):
        SkopsFormat(FormatSettings(memory_bytes=10_000_000)).load(
            path, models.version("skops"), "auto"
        )


def test_a_skops_file_without_a_model_is_refused(tmp_path: Path) -> None:
    path = models.save_skops({"a": 1}, tmp_path / "model.skops")

    with pytest.raises(InvalidInput, match="not an estimator"):
        FORMAT.load(path, models.version("skops"), "auto")


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("sklearn.tree._tree.Tree", True),
        ("sklearn.gaussian_process.kernels.RBF", True),
        ("sklearn.feature_selection._univariate_selection.f_classif", True),
        ("sklearn.datasets._base.load_files", False),
        ("sklearn.utils._testing.TempMemmap", False),
        ("sklearn.externals.array_api_compat.numpy.asarray", False),
        ("sklearn.base.warnings", False),
        ("sklearn.utils.deprecation.functools.partial", False),
        ("sklearn.no_such_module.Thing", False),
        ("sklearnx.tree.Tree", False),
        ("operator.methodcaller", False),
        ("builtins.eval", False),
    ],
)
def test_only_reviewed_types_and_scikit_learns_own_classes_are_trusted(
    name: str, trusted: bool
) -> None:
    assert is_trusted(name) is trusted
