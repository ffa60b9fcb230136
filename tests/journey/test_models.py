"""Store, call and manage models of each format, through the SDK over REST and gRPC, over both
brokers.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stellwerk.client import Client, errors
from tests.journey.stack import Platform, eventually


def test_a_pipeline_answers_as_it_does_at_home(
    sw: Client, iris: tuple[Any, Any, Any], iris_stored: str
) -> None:
    model, X, y = iris
    remote = sw.runtime.model("iris")

    assert np.array_equal(remote.predict(X), model.predict(X))
    proba = remote.predict_proba(X)
    assert proba.shape == (150, 3)
    np.testing.assert_allclose(proba, model.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(remote.decision_function(X), model.decision_function(X), atol=1e-9)
    assert remote.score(X, y) == pytest.approx(model.score(X, y))


def test_a_transformer_keeps_its_shape(sw: Client, iris: tuple[Any, Any, Any]) -> None:
    model, X, _ = iris
    scaler = model[0]
    sw.models.put(scaler, "scaler", example=X[:2])

    np.testing.assert_allclose(
        sw.runtime.model("scaler").transform(X[:7]), scaler.transform(X[:7]), atol=1e-9
    )


def test_frames_with_text_and_numbers_are_understood(sw: Client) -> None:
    pandas = pytest.importorskip("pandas")
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pandas.DataFrame({"city": ["bern", "ulm", "bern", "ulm"] * 5, "size": np.arange(20.0)})
    target = np.array(["no", "yes"] * 10)
    columns = make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), ["size"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    sw.models.put(model, "cities", example=frame[:2])

    answer = sw.runtime.model("cities").predict(frame)

    assert [text.decode() if isinstance(text, bytes) else text for text in answer] == list(
        model.predict(frame)
    )


def test_a_torch_module_answers_as_it_does_at_home(sw: Client) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10)
    ).eval()
    images = torch.rand(5, 1, 8, 8)
    sw.models.put(module, "digits-net", example=images[:2])

    answer = sw.runtime.model("digits-net").predict(images.numpy())

    with torch.no_grad():
        np.testing.assert_allclose(answer, module(images).numpy(), atol=1e-5)


def test_an_onnx_model_answers_as_it_does_at_home(sw: Client, iris: tuple[Any, Any, Any]) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    model, X, _ = iris
    exported = skl2onnx.to_onnx(model, X[:1].astype(np.float32), options={"zipmap": False})
    sw.models.put(exported, "iris-onnx")

    answer = sw.runtime.model("iris-onnx").predict(X.astype(np.float32))

    labels, probabilities = answer.values()
    assert np.array_equal(labels, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-5)


def test_versions_are_numbered_and_aliases_move_by_compare_and_set(
    sw: Client, iris: tuple[Any, Any, Any]
) -> None:
    model, X, _ = iris
    name = f"numbered-{uuid.uuid4().hex[:8]}"
    first, second = (sw.models.put(model, name, example=X[:2]) for _ in range(2))
    assert (first.version, second.version) == (1, 2)

    sw.models.promote(name, 1, alias="production")
    assert sw.runtime.model(name, alias="production").call(X[:1]).model_version == first.name
    assert sw.runtime.model(name).call(X[:1]).model_version == second.name
    sw.models.promote(name, 2, alias="production")
    moved = sw.runtime.model(name, alias="production")
    eventually(
        lambda: moved.call(X[:1]).model_version == second.name,
        1,
        "the alias answers with its new version",
    )

    assert [version.version for version in sw.models.versions(name)] == [2, 1]
    with pytest.raises(errors.NotReady):
        sw.models.drop(name, version=2)
    sw.models.drop(name)
    with pytest.raises(errors.ModelNotFound):
        sw.models.info(name)


def test_an_artifact_comes_back_byte_for_byte(
    sw: Client, tmp_path: Path, iris: tuple[Any, Any, Any]
) -> None:
    import hashlib

    model, X, _ = iris
    stored = sw.models.put(model, "roundtrip", example=X[:2])

    path = sw.models.download("roundtrip", tmp_path / "artifact")

    assert hashlib.sha256(path.read_bytes()).hexdigest() == stored.sha256
    assert np.array_equal(sw.models.get("roundtrip").predict(X), model.predict(X))


def test_the_logs_are_searched_with_the_request_id_of_an_error(
    sw: Client, platform: Platform
) -> None:
    with pytest.raises(errors.ModelNotFound) as caught:
        sw.models.info("nosuch")

    error = caught.value
    assert error.__notes__ == [f"request id: {error.request_id}"]
    eventually(
        lambda: error.request_id in platform.log_path.read_text(),
        10,
        f"a log line of the request {error.request_id}",
    )


def test_a_requirement_nobody_meets_is_explained_at_once(sw: Client, iris_stored: str) -> None:
    with pytest.raises(errors.RequirementUnmet, match="label zone=mars"):
        sw.runtime.require(labels={"zone": "mars"}).model("iris").predict([[1.0, 2.0, 3.0, 4.0]])


def test_a_requirement_that_is_met_makes_no_second_copy(
    sw: Client, iris_stored: str, iris: tuple[Any, Any, Any]
) -> None:
    model, X, _ = iris

    answer = sw.runtime.require(frameworks={"scikit-learn": ">=1"}).model("iris").predict(X[:3])

    assert np.array_equal(answer, model.predict(X[:3]))
