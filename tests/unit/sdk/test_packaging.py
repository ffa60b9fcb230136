"""Objects to artifacts and back: real scikit-learn, ONNX and torch models, their signatures, and
what is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from stellwerk.client.errors import InvalidInput, ServiceError, UnsafeFormat
from stellwerk.client.packaging import packagers
from stellwerk.type.v1.tensor_pb2 import TensorSpec


def described(specs: Any) -> list[tuple[str, str, list[int]]]:
    return [(spec.name, spec.datatype, list(spec.shape)) for spec in specs]


def methods(package: Any) -> dict[str, Any]:
    return {entry.method: entry for entry in package.signature}


def test_a_classifier_is_described_without_an_example(pipeline: Any, tmp_path: Path) -> None:
    package = packagers.package(pipeline, tmp_path)

    found = methods(package)
    assert package.format == "skops"
    assert set(found) == {
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "score",
    }
    assert described(found["predict"].inputs) == [("X", "FP64", [-1, 4])]
    assert described(found["predict"].outputs) == [("predict", "INT64", [-1])]
    assert described(found["predict_proba"].outputs) == [("predict_proba", "FP64", [-1, 3])]
    assert described(found["score"].inputs) == [("X", "FP64", [-1, 4]), ("y", "INT64", [-1])]
    assert described(found["score"].outputs) == [("score", "FP64", [1])]


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
        LinearRegression(),
        KMeans(2, n_init=1, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_come_back_as_they_were(estimator: Any, iris: Any, tmp_path: Path) -> None:
    estimator.fit(iris.data, iris.target)

    package = packagers.package(estimator, tmp_path)
    loaded = packagers.load(package.path, package.format)

    np.testing.assert_array_equal(loaded.predict(iris.data), estimator.predict(iris.data))


def test_labels_of_text_are_bytes_and_a_frame_gives_column_names(iris: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(iris.data, columns=iris.feature_names)
    model = LogisticRegression(max_iter=500).fit(frame, iris.target_names[iris.target])

    found = methods(packagers.package(model, tmp_path))

    assert described(found["predict"].outputs) == [("predict", "BYTES", [-1])]
    assert list(found["predict"].inputs[0].columns) == iris.feature_names


def test_a_table_with_text_has_one_input_for_each_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"city": ["Basel", "Chur", "Basel", "Chur"], "size": [1.0, 2.0, 3.0, 4.0]})
    encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    model = make_pipeline(encode, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])

    with pytest.raises(InvalidInput, match="example="):
        packagers.package(model, tmp_path)
    found = methods(packagers.package(model, tmp_path, example=frame))

    assert described(found["predict"].inputs) == [
        ("city", "BYTES", [-1, 1]),
        ("size", "FP64", [-1, 1]),
    ]
    assert described(found["score"].inputs)[-1] == ("y", "FP64", [-1])


def test_an_example_decides_the_exact_datatype(pipeline: Any, iris: Any, tmp_path: Path) -> None:
    found = methods(packagers.package(pipeline, tmp_path, example=iris.data[:2].astype(np.float32)))

    assert described(found["predict"].inputs) == [("X", "FP32", [-1, 4])]


def test_a_model_of_texts_takes_a_list_of_texts(tmp_path: Path) -> None:
    texts = ["the train is late", "the train is on time", "late again", "on time again"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])

    found = methods(packagers.package(model, tmp_path, example=texts))

    assert described(found["predict"].inputs) == [("X", "BYTES", [-1])]


def test_what_is_not_fitted_or_not_a_model_is_refused(tmp_path: Path) -> None:
    for thing in [LogisticRegression(), object(), {"a": 1}, torch.nn.Linear(2, 1)]:
        with pytest.raises(InvalidInput):
            packagers.package(thing, tmp_path)


def test_a_model_with_a_function_of_its_own_is_refused(iris: Any, tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(pd.DataFrame), StandardScaler()).fit(iris.data)

    with pytest.raises(InvalidInput, match=r"pandas"):
        packagers.package(model, tmp_path)


def test_a_file_with_a_foreign_type_is_not_loaded(tmp_path: Path) -> None:
    skops.io.dump(FunctionTransformer(pd.DataFrame), tmp_path / "hostile.skops")

    with pytest.raises(UnsafeFormat, match="pandas"):
        packagers.load(tmp_path / "hostile.skops", "skops")


def test_a_function_of_scikit_learn_is_not_trusted_like_its_classes(tmp_path: Path) -> None:
    from sklearn.datasets import load_files

    skops.io.dump(FunctionTransformer(load_files), tmp_path / "hostile.skops")

    with pytest.raises(UnsafeFormat, match="load_files"):
        packagers.load(tmp_path / "hostile.skops", "skops")


def test_onnx_keeps_the_names_and_types_of_the_graph(iris: Any, tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)
    graph = to_onnx(model, iris.data[:1].astype(np.float32), options={"zipmap": False})

    package = packagers.package(graph, tmp_path)
    from_file = packagers.package(package.path, tmp_path)

    (entry,) = package.signature
    assert package.format == from_file.format == "onnx"
    assert described(entry.inputs) == [("X", "FP32", [-1, 4])]
    assert described(entry.outputs) == [
        ("label", "INT64", [-1]),
        ("probabilities", "FP32", [-1, 3]),
    ]
    assert packagers.load(package.path, "onnx") == graph


def test_onnx_outputs_that_are_no_tensors_are_refused(iris: Any, tmp_path: Path) -> None:
    graph = to_onnx(
        LogisticRegression(max_iter=500).fit(iris.data, iris.target), iris.data[:1].astype("f4")
    )

    with pytest.raises(InvalidInput, match="zipmap"):
        packagers.package(graph, tmp_path)


def test_a_torch_module_is_exported_for_batches_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 3)
    )

    package = packagers.package(module, tmp_path, example=np.zeros((1, 4), dtype=np.float32))
    loaded = packagers.load(package.path, package.format, unsafe=True)

    (entry,) = package.signature
    assert package.format == "torch_export"
    assert described(entry.inputs) == [("input", "FP32", [-1, 4])]
    assert described(entry.outputs) == [("output", "FP32", [-1, 3])]
    assert module.training
    batch = torch.randn(7, 4)
    torch.testing.assert_close(loaded.module()(batch), module.eval()(batch))


def test_a_torch_program_is_loaded_only_from_whom_is_trusted(tmp_path: Path) -> None:
    package = packagers.package(
        torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),)), tmp_path
    )

    with pytest.raises(UnsafeFormat, match="unsafe=True"):
        packagers.load(package.path, package.format)


def test_an_exported_program_and_its_file_are_described_alike(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(3, 4),))

    package = packagers.package(program, tmp_path)
    from_file = packagers.package(package.path, tmp_path)

    assert described(package.signature[0].inputs) == [("input", "FP32", [3, 4])]
    assert list(package.signature) == list(from_file.signature)


def test_a_module_of_two_inputs_and_two_outputs_is_described_in_order(tmp_path: Path) -> None:
    class Both(torch.nn.Module):
        def forward(
            self, left: torch.Tensor, right: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return left + right, (left * right).sum(dim=1)

    package = packagers.package(Both(), tmp_path, example=(torch.zeros(2, 3), torch.zeros(2, 3)))

    (entry,) = package.signature
    assert described(entry.inputs) == [("left", "FP32", [-1, 3]), ("right", "FP32", [-1, 3])]
    assert described(entry.outputs) == [("output_0", "FP32", [-1, 3]), ("output_1", "FP32", [-1])]


def test_pickles_take_two_words(pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04.")

    for arguments in [{}, {"format": "pickle"}, {"unsafe": True}]:
        with pytest.raises(UnsafeFormat):
            packagers.package(path, tmp_path, **arguments)
    assert packagers.package(path, tmp_path, format="pickle", unsafe=True).format == "pickle"
    assert methods(packagers.package(pipeline, tmp_path, format="pickle", unsafe=True))[
        "predict"
    ].inputs[0] == TensorSpec(name="X", datatype="FP64", shape=[-1, 4])
    with pytest.raises(UnsafeFormat):
        packagers.package(pipeline, tmp_path, format="pickle")
    with pytest.raises(InvalidInput, match="download"):
        packagers.load(path, "pickle")


@pytest.mark.parametrize("name", ["model.skops", "model.onnx", "model.pt2"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04cposix\nsystem\n(S'true'\ntR.")

    with pytest.raises(ServiceError) as caught:
        packagers.package(tmp_path / name, tmp_path)
    assert caught.value.reason in ("INVALID_INPUT", "CORRUPT")


def test_missing_files_and_unknown_endings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()

    with pytest.raises(InvalidInput, match="no file"):
        packagers.package(tmp_path / "nosuch.onnx", tmp_path)
    with pytest.raises(InvalidInput, match="format="):
        packagers.package(tmp_path / "model.bin", tmp_path)
