"""Pickled models, of which a method may be a generator: its answers come one by one, as if each
were returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from services.runtime.formats.pickled.model import PickledModel
from services.runtime.formats.pickled.plugin import PickleFormat
from services.runtime.formats.port import FormatSettings
from services.runtime.formats.sklearn.plugin import SkopsFormat
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput, NotImplementedHere
from tests.fakes import models


def load(model: Any, folder: Path, *signature: tensor_pb2.MethodSignature) -> PickledModel:
    path = folder / "model.pkl"
    # By value, as a model of a user's own script is stored.
    path.write_bytes(cloudpickle.dumps(model))
    return PickleFormat(FormatSettings()).load(path, models.version("pickle", *signature), "auto")


def generating() -> Any:
    class Generating:
        """Counts the rows that it is given, in several ways."""

        def predict(self, features: Any) -> Iterator[Any]:
            for row in features:
                yield row.sum()

        def transform(self, features: Any) -> Any:
            return features * 2

        def words(self, features: Any) -> Any:
            return iter([["Zug", "um", "Zug"], "Ende", {"text": "aus", "left": np.arange(2)}])

        def _secret(self, features: Any) -> Any:
            yield 1

    return Generating()


X = {"X": np.arange(6.0).reshape(3, 2)}
WORDS = tensor_pb2.MethodSignature(method="words", decoupled=True)


def test_generator_methods_are_streams_and_others_are_not(tmp_path: Path) -> None:
    hidden = tensor_pb2.MethodSignature(method="_secret", decoupled=True)
    absent = tensor_pb2.MethodSignature(method="absent", decoupled=True)

    assert load(generating(), tmp_path).streams == {"predict"}
    assert load(generating(), tmp_path, WORDS, hidden, absent).streams == {"predict", "words"}


def test_each_answer_is_what_a_returned_value_would_be(tmp_path: Path) -> None:
    declared = models.method(
        "predict", [models.spec("X", "FP64", -1, 2)], [models.spec("total", "FP64", 1)]
    )

    answers = list(load(generating(), tmp_path, declared).stream("predict", X))

    assert [list(answer) for answer in answers] == [["total"]] * 3
    assert [answer["total"].tolist() for answer in answers] == [[1.0], [5.0], [9.0]]


def test_any_iterator_will_do_where_it_is_declared_and_answers_may_have_names(
    tmp_path: Path,
) -> None:
    first, second, third = load(generating(), tmp_path, WORDS).stream("words", X)

    assert {name: array.item() for name, array in first.items()} == {
        "words_0": "Zug",
        "words_1": "um",
        "words_2": "Zug",
    }
    assert second["words"].tolist() == ["Ende"]
    assert third["text"].tolist() == ["aus"] and third["left"].tolist() == [0, 1]


def test_a_method_is_called_in_its_own_way_alone(tmp_path: Path) -> None:
    model = load(generating(), tmp_path)

    assert model.call("transform", X)["transform"].tolist() == (X["X"] * 2).tolist()
    with pytest.raises(NotImplementedHere, match="over a stream"):
        model.call("predict", X)
    with pytest.raises(NotImplementedHere, match="without a stream"):
        model.stream("transform", X)
    with pytest.raises(InvalidInput, match="no method"):
        model.call("words", X)


def test_answers_are_computed_when_they_are_asked_for_and_a_stream_can_be_left(
    tmp_path: Path,
) -> None:
    events: list[str] = []

    class Endless:
        def predict(self, features: Any) -> Iterator[int]:
            try:
                for number in range(1_000_000):
                    events.append(f"made {number}")
                    yield number
            finally:
                events.append("left")

    model = PickledModel(Endless(), models.version("pickle"), 1)

    answers = model.stream("predict", X)
    assert events == []
    assert next(answers)["predict"].tolist() == [0]
    answers.close()  # type: ignore[attr-defined]

    assert events == ["made 0", "left"]


def test_what_a_generator_raises_comes_where_it_is_raised(tmp_path: Path) -> None:
    class Failing:
        def predict(self, features: Any) -> Iterator[int]:
            yield 1
            raise ValueError("no more")

    answers = PickledModel(Failing(), models.version("pickle"), 1).stream("predict", X)

    assert next(answers)["predict"].tolist() == [1]
    with pytest.raises(ValueError, match="no more"):
        next(answers)


def test_models_of_other_formats_have_no_streams(tmp_path: Path) -> None:
    pipeline, features, _ = models.iris_pipeline()
    path = models.save_skops(pipeline, tmp_path / "iris.skops")
    model = SkopsFormat(FormatSettings()).load(path, models.version("skops"), "auto")

    assert model.streams == frozenset()
    with pytest.raises(NotImplementedHere, match="one answer"):
        model.stream("predict", {"X": features[:1]})
