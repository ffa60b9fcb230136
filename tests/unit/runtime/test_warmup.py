"""The first calls of a model: those its owner gave must work, an invented one may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.runtime.formats.port import Array, Arrays, FormatSettings
from services.runtime.models.loader import ModelLoader
from services.runtime.models.warmup import warm_up
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import serving_pb2
from stellwerk.wire.errors import ModelFailed, Overloaded
from stellwerk.wire.tensors import from_numpy
from tests.fakes import models
from tests.fakes.log import FakeLog

X = models.spec("X", "FP64", -1, 4)


class Called:
    """A model that notes its calls."""

    device = "cpu"
    memory_bytes = 1

    def __init__(
        self, failure: BaseException | None = None, streams: frozenset[str] = frozenset()
    ) -> None:
        self.calls: list[tuple[str, dict[str, list[int]]]] = []
        self.failure, self.streams = failure, streams
        self.answers = 0
        self.ended = False

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        self.calls.append((method, {name: list(array.shape) for name, array in inputs.items()}))
        if self.failure is not None:
            raise self.failure
        return {}

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        self.call(method, inputs)
        try:
            while True:
                self.answers += 1
                yield {}
        finally:
            self.ended = True

    def close(self) -> None: ...


def version(*specs: Any, warmup: Any = (), **fields: Any) -> repository_pb2.ModelVersion:
    made = models.version("skops", *([models.method("predict", list(specs), [])] if specs else []))
    made.serving.warmup.extend(warmup)
    return made


def sample(array: Any, method: str = "") -> serving_pb2.WarmupCall:
    return serving_pb2.WarmupCall(method=method, inputs=[from_numpy("X", array)])


def test_the_owners_calls_are_made_in_order() -> None:
    model = Called()

    made = warm_up(
        model,
        version(warmup=[sample(np.zeros((2, 4))), sample(np.zeros(3), "transform")]),
        invent=True,
        log=FakeLog(),
    )

    assert made == 2
    assert model.calls == [("predict", {"X": [2, 4]}), ("transform", {"X": [3]})]


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (
            ValueError("no such thing\nsecond line"),
            ModelFailed,
            r"warm-up call 1 of 'predict' failed: ValueError: no such thing$",
        ),
        (MemoryError(), Overloaded, "not enough memory"),
    ],
)
def test_a_given_call_that_fails_fails_the_load(
    failure: Exception, expected: type[Exception], message: str
) -> None:
    with pytest.raises(expected, match=message):
        warm_up(
            Called(failure), version(warmup=[sample(np.zeros((1, 4)))]), invent=True, log=FakeLog()
        )


def test_a_given_call_must_fit_the_signature() -> None:
    model = Called()

    with pytest.raises(
        ModelFailed,
        match=r"call 2 of 'predict' failed: InvalidInput: input 'X' must have the shape",
    ):
        warm_up(
            model,
            version(X, warmup=[sample(np.zeros((1, 4))), sample(np.zeros((1, 5)))]),
            invent=True,
            log=FakeLog(),
        )

    assert len(model.calls) == 1


def test_of_a_stream_the_first_answer_is_taken() -> None:
    model = Called(streams=frozenset({"predict"}))

    warm_up(model, version(warmup=[sample(np.zeros((1, 4)))]), invent=True, log=FakeLog())

    assert model.answers == 1 and model.ended


def test_one_row_of_zeros_is_invented_where_the_signature_says_what_that_is() -> None:
    model = Called()

    made = warm_up(model, version(X, models.spec("t", "FP32", 2, 3)), invent=True, log=FakeLog())

    assert made == 1
    assert model.calls == [("predict", {"X": [1, 4], "t": [2, 3]})]


@pytest.mark.parametrize(
    "specs",
    [
        (),
        (models.spec("X", "FP64", -1, -1),),
        (X, models.spec("text", "BYTES", -1)),
        (models.spec("X", "FP64", -1, 1 << 20),),
        (models.spec("X", "FP64", 1 << 40, 1 << 40),),
        (models.spec("X", "NONE", -1, 4),),
    ],
)
def test_nothing_is_invented_where_it_does_not_or_costs_too_much(specs: Any) -> None:
    model = Called()

    assert warm_up(model, version(*specs), invent=True, log=FakeLog()) == 0
    assert model.calls == []


def test_an_invented_call_may_fail_and_may_be_forbidden() -> None:
    failing, unasked = Called(ValueError("not these")), Called()

    assert warm_up(failing, version(X), invent=True, log=FakeLog()) == 0
    assert warm_up(unasked, version(X), invent=False, log=FakeLog()) == 0

    assert len(failing.calls) == 1 and unasked.calls == []


async def loader(
    loaded: Callable[[], None] = lambda: None, log: FakeLog | None = None
) -> ModelLoader:
    made = ModelLoader(
        FormatSettings(), device="cpu", allow_unsafe=True, log=log or FakeLog(), loaded=loaded
    )
    await made.start()
    return made


async def test_a_real_model_is_warm_when_it_is_loaded_or_is_not_loaded(tmp_path: Path) -> None:
    pipeline, _, _ = models.iris_pipeline()
    path = models.save_skops(pipeline, tmp_path / "iris.skops")
    limited: list[bool] = []
    made = await loader(lambda: limited.append(True))
    good, bad = (version(X, warmup=[sample(np.zeros((1, columns)))]) for columns in (4, 5))
    made.prepare(good)

    assert made.load(path, good).device == "cpu"
    with pytest.raises(ModelFailed, match="warm-up call 1"):
        made.load(path, bad)
    assert limited == [True, True]


async def test_an_exception_that_a_load_did_not_mean_to_raise_is_in_the_log(
    tmp_path: Path,
) -> None:
    log = FakeLog()
    made = await loader(log=log)

    with pytest.raises(FileNotFoundError):
        made.load(tmp_path / "nothing.skops", version(X))

    (fields,) = [fields for event, fields in log.lines if event == "model_not_loaded"]
    assert isinstance(fields["exc_info"], FileNotFoundError)
