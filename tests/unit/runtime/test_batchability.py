"""Batchability is promised, declared or probed, and never guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.runtime.formats.port import Signature
from services.runtime.requests.batchability import (
    Batchability,
    declared_batchability,
    differing_row,
    nearly_equal,
)
from tests.fakes import models

ROWS = models.spec("x", "FP64", -1, 2)
FIXED = models.spec("x", "FP64", 1, 2)
SCALAR = models.spec("y", "FP64")
DECLARED = Signature((ROWS,), (ROWS,))
NEVER, PROBE, ALWAYS = Batchability.NEVER, Batchability.PROBE, Batchability.ALWAYS


@pytest.mark.parametrize(
    ("model_format", "method", "signature", "mode", "expected"),
    [
        ("onnx", "predict", DECLARED, "rows", ALWAYS),
        ("onnx", "predict", DECLARED, "", PROBE),
        ("torch_export", "predict", DECLARED, "", PROBE),
        ("onnx", "predict", DECLARED, "off", NEVER),
        ("onnx", "predict", Signature((ROWS,), (FIXED,)), "rows", NEVER),
        ("onnx", "predict", Signature((FIXED,), (ROWS,)), "rows", NEVER),
        ("onnx", "predict", Signature((ROWS,), (SCALAR,)), "rows", NEVER),
        ("onnx", "predict", Signature((ROWS,), ()), "", NEVER),
        ("onnx", "predict", Signature(), "", NEVER),
        ("skops", "predict", DECLARED, "", ALWAYS),
        ("skops", "transform", DECLARED, "", ALWAYS),
        ("skops", "predict", DECLARED, "off", NEVER),
        ("skops", "predict", Signature((ROWS,), (SCALAR,)), "", NEVER),
        ("skops", "predict", Signature(), "", ALWAYS),
        ("skops", "transform", Signature(), "", NEVER),
        ("skops", "score", DECLARED, "rows", NEVER),
        ("somebodys", "predict", DECLARED, "", NEVER),
    ],
)
def test_what_is_known_beforehand(
    model_format: str, method: str, signature: Signature, mode: str, expected: Batchability
) -> None:
    assert declared_batchability(model_format, method, signature, mode) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (np.float32([1, 2]), np.float32([1, 2.00001]), True),
        (np.float32([1, 2]), np.float32([1, 2.01]), False),
        (np.float32([1e-9, 2]), np.float32([2e-9, 2]), True),
        (np.float64([1, 2]), np.float64([1, 2.00001]), False),
        (np.float16([1]), np.float16([1.001]), True),
        (np.float32([np.nan, np.inf]), np.float32([np.nan, np.inf]), True),
        (np.float32([np.nan]), np.float32([0]), False),
        (np.int64([1]), np.int64([2]), False),
        (np.int64([1]), np.int32([1]), False),
        (np.array([b"a"], object), np.array([b"a"], object), True),
        (np.zeros((1, 2)), np.zeros((2, 1)), False),
    ],
)
def test_answers_are_compared_as_exactly_as_their_kind_allows(
    one: Any, other: Any, expected: bool
) -> None:
    assert nearly_equal(one, other) is expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 2)),
        np.ones((3, 2), np.int8),
        np.array([[0.0], [2.0]]),
        np.array([[b"0"], [b"x"]], object),
        np.array([[b"1"]], object),
        np.eye(2) > 0,
    ],
)
def test_a_stranger_differs_in_content_and_in_nothing_else(array: Any) -> None:
    (stranger,) = differing_row({"x": array}).values()

    assert stranger.shape == (1, *array.shape[1:]) and stranger.dtype == array.dtype
    assert not any(np.array_equal(row, stranger[0]) for row in array)
