"""Joining and cutting: every caller gets its own rows back, and a bad neighbour costs nobody anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching import Request, batch_key, join, split, works_by_rows
from services.runtime.calls import execute
from services.runtime.formats.port import Array, Arrays, Signature
from services.wire.errors import InvalidInput, ModelFailed, Overloaded
from services.wire.tensors import to_numpy
from tests.fakes import models

ROWS = models.spec("x", "FP64", -1, 2)
FIXED = models.spec("x", "FP64", 1, 2)


class Doubling:
    """Doubles its input; raises on rows that hold 13, and counts its calls."""

    device = "cpu"
    memory_bytes = 1

    def __init__(self) -> None:
        self.calls: list[int] = []

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x = inputs["x"]
        self.calls.append(len(x))
        if (x == 13).any():
            raise ValueError("thirteen\n/secret/path")
        return {"y": x * 2, "z": x[:, :1]}

    def close(self) -> None: ...


def request(*values: float, name: str = "r", outputs: tuple[str, ...] = ()) -> Request:
    return Request(name, "predict", {"x": np.array(values, dtype=np.float64).reshape(-1, 1)}, outputs)


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4), min_size=1, max_size=12))
def test_each_request_gets_what_it_would_have_got_alone(rows: list[list[int]]) -> None:
    requests = [request(*values) for values in rows]

    answers = execute(Doubling(), requests, rowwise=True)

    for values, answer in zip(rows, answers, strict=True):
        if 13 in values:
            assert isinstance(answer.error, ModelFailed)
        else:
            assert answer.error is None
            assert to_numpy(answer.outputs[0]).tolist() == [[value * 2] for value in values]


def test_a_culprit_is_found_by_halving() -> None:
    model = Doubling()

    execute(model, [request(13 if index == 5 else 1) for index in range(16)], rowwise=True)

    assert model.calls[0] == 16
    assert len(model.calls) == 9  # 16, then two halves on each of four levels


def test_the_error_carries_class_and_first_line_and_nothing_deeper() -> None:
    answer = execute(Doubling(), [request(13)], rowwise=True)[0]

    assert answer.error is not None
    assert answer.error.message == "the model raised ValueError: thirteen"
    assert isinstance(answer.cause, ValueError)


class Fixed:
    """Answers the same whatever it is asked."""

    device = "cpu"
    memory_bytes = 1

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return {"y": np.asarray(self.answer)}

    def close(self) -> None: ...


@pytest.mark.parametrize("answer", [[1.0, 2.0, 3.0], 1.0, []])
def test_another_number_of_rows_is_the_models_failure(answer: object) -> None:
    result = execute(Fixed(answer), [request(1, 2)], rowwise=True)[0]

    assert isinstance(result.error, ModelFailed)
    assert "rows" in result.error.message


def test_a_method_that_does_not_work_by_rows_may_answer_anything() -> None:
    assert execute(Fixed(0.5), [request(1, 2)], rowwise=False)[0].error is None


def test_an_answer_that_no_tensor_can_carry_is_the_models_failure() -> None:
    result = execute(Fixed([1 + 2j, 0]), [request(1, 2)], rowwise=True)[0]

    assert isinstance(result.error, ModelFailed)


def test_no_memory_is_overload() -> None:
    assert isinstance(execute(Fixed(MemoryError()), [request(1)], rowwise=True)[0].error, Overloaded)


def test_outputs_come_as_asked_for_and_an_unknown_one_is_the_callers_fault() -> None:
    asked = [request(1, outputs=("z", "y")), request(2, outputs=("w",)), request(3)]

    first, second, third = execute(Doubling(), asked, rowwise=True)

    assert [tensor.name for tensor in first.outputs] == ["z", "y"]
    assert isinstance(second.error, InvalidInput) and "gives y, z" in second.error.message
    assert [tensor.name for tensor in third.outputs] == ["y", "z"]


def test_only_like_is_joined_with_like() -> None:
    key = batch_key(request(1), rowwise=True)

    assert key == batch_key(request(2, 3), rowwise=True)
    assert key != batch_key(Request("r", "predict", {"x": np.zeros((1, 1), np.float32)}), rowwise=True)
    assert key != batch_key(Request("r", "predict", {"x": np.zeros((1, 2))}), rowwise=True)
    assert key != batch_key(Request("r", "transform", {"x": np.zeros((1, 1))}), rowwise=True)
    assert batch_key(request(1), rowwise=False) is None
    assert batch_key(request(), rowwise=True) is None
    assert batch_key(Request("r", "predict", {"x": np.array(1.0)}), rowwise=True) is None
    uneven = Request("r", "predict", {"x": np.zeros((1, 1)), "y": np.zeros((2, 1))})
    assert batch_key(uneven, rowwise=True) is None


def test_joining_and_splitting_are_inverse() -> None:
    requests = [request(1, 2), request(3), request(4, 5, 6)]

    parts = split(join(requests), [2, 1, 3])

    for part, original in zip(parts, requests, strict=True):
        np.testing.assert_array_equal(part["x"], original.inputs["x"])


SCALAR = models.spec("y", "FP64")
DECLARED = Signature((ROWS,), (ROWS,))


@pytest.mark.parametrize(
    ("model_format", "method", "signature", "mode", "expected"),
    [
        ("onnx", "predict", DECLARED, "rows", True),
        ("onnx", "predict", DECLARED, "", False),
        ("onnx", "predict", Signature((ROWS,), (FIXED,)), "rows", False),
        ("onnx", "predict", Signature((FIXED,), (ROWS,)), "rows", False),
        ("onnx", "predict", Signature((ROWS,), (SCALAR,)), "rows", False),
        ("onnx", "predict", Signature(), "", False),
        ("skops", "predict", DECLARED, "", True),
        ("skops", "transform", DECLARED, "", True),
        ("skops", "predict", DECLARED, "off", False),
        ("skops", "predict", Signature((ROWS,), (SCALAR,)), "", False),
        ("skops", "predict", Signature(), "", True),
        ("skops", "transform", Signature(), "", False),
        ("skops", "score", DECLARED, "rows", False),
    ],
)
def test_rows_are_promised_or_declared_and_never_guessed(
    model_format: str, method: str, signature: Signature, mode: str, expected: bool
) -> None:
    assert works_by_rows(model_format, method, signature, mode) is expected
