"""Items become requests: what is wrong is refused whatever was remembered, what is alike is
recognised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.batchability import Batchability
from services.runtime.requests.request import NEVER
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput
from tests.fakes import models
from tests.fakes.work import Inbox, item

DECLARED = models.version(
    "skops",
    models.method("predict", [models.spec("x", "FP64", -1, 2)], [models.spec("y", "INT64", -1)]),
)
TWO = models.version(
    "skops",
    models.method(
        "predict",
        [models.spec("x0", "FP32", -1, 2), models.spec("x1", "BYTES", -1)],
        [models.spec("y", "INT64", -1)],
    ),
)


def tensor(datatype: str, shape: list[int], data: bytes, name: str = "x") -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(name=name, datatype=datatype, shape=shape, data=data)


def admit(inbox: Inbox, *inputs: tensor_pb2.Tensor) -> Any:
    return inbox.layouts.admit(
        work_pb2.WorkItem(id="r", method="predict", inputs=inputs), inbox.message()
    )


def test_requests_that_differ_in_rows_alone_have_one_form() -> None:
    inbox = Inbox()

    first, second = inbox.request(np.zeros((1, 2))), inbox.request(np.ones((3, 2)))

    assert first.layout is second.layout
    assert (first.rows, second.rows) == (1, 3)


@pytest.mark.parametrize(
    ("array", "fields"),
    [
        (np.zeros((1, 3)), {}),
        (np.zeros((1, 2, 1)), {}),
        (np.zeros((1, 2), np.float32), {}),
        (np.zeros((1, 2)), {"method": "predict_proba"}),
        (np.zeros((1, 2)), {"outputs": ["y"]}),
    ],
)
def test_requests_that_differ_in_anything_else_have_not(array: Any, fields: dict[str, Any]) -> None:
    inbox = Inbox()

    assert inbox.request(np.zeros((1, 2))).layout is not inbox.request(array, **fields).layout


def test_shapes_and_outputs_are_not_taken_for_each_other() -> None:
    inbox = Inbox()

    inputs = [
        inbox.request(np.zeros(2)),
        inbox.request(np.zeros(2), outputs=["a", "b"]),
        inbox.request(np.zeros(())),
    ]

    assert len({request.layout for request in inputs}) == 3
    assert [request.rows for request in inputs] == [2, 2, 0]


datatypes = st.sampled_from([*sorted(tensors.ALL_DATATYPES), "COMPLEX64", ""])
shapes = st.lists(st.integers(-1, 4) | st.sampled_from([2**40, 2**62]), max_size=3)
inputs = st.builds(
    tensor,
    datatypes,
    shapes,
    st.integers(0, 40).map(bytes) | st.just(tensors.join_bytes([b"a", b"bc"])),
    st.sampled_from(["x", "x0", "x1"]),
)


@given(st.lists(st.lists(inputs, max_size=2), max_size=6), st.sampled_from([None, DECLARED, TWO]))
def test_what_was_remembered_never_lets_a_lie_through(
    asked: list[list[tensor_pb2.Tensor]], version: Any
) -> None:
    inbox = Inbox(version)
    good = (
        [tensor("FP64", [1, 2], bytes(16))],
        [
            tensor("FP32", [1, 2], bytes(8), "x0"),
            tensor("BYTES", [1], b"\1\0\0\0a", "x1"),
        ],
    )
    for known in good:
        if version is None or refusal(known, version) is None:
            admit(inbox, *known)

    for given_inputs in asked:
        expected = refusal(given_inputs, version)
        try:
            request = admit(inbox, *given_inputs)
        except InvalidInput as exc:
            assert exc.message == expected
        else:
            assert expected is None
            counts = {t.shape[0] if t.shape else 0 for t in given_inputs}
            assert request.rows == (counts.pop() if len(counts) == 1 else 0)


def refusal(asked: list[tensor_pb2.Tensor], version: Any) -> str | None:
    """What the checks at the edge say of these inputs; None if they are good."""
    try:
        if version is not None:
            tensors.check_against(asked, version.signature[0].inputs)
        for entry in asked:
            tensors.to_numpy(entry)
        if len({entry.name for entry in asked}) != len(asked):
            raise InvalidInput("an input is given twice")
    except InvalidInput as exc:
        return exc.message
    return None


def test_a_fixed_first_dimension_holds_for_each_request() -> None:
    inbox = Inbox(
        models.version("onnx", models.method("predict", [models.spec("x", "FP64", 2, 2)], []))
    )

    assert inbox.request(np.zeros((2, 2))).rows == 2
    with pytest.raises(InvalidInput, match=r"must have the shape \[2, 2\]"):
        inbox.request(np.zeros((3, 2)))


def test_uneven_inputs_are_good_but_have_no_rows_in_common() -> None:
    inbox = Inbox()
    even = inbox.request(np.zeros((2, 1)), np.zeros((2, 1)))

    uneven = inbox.request(np.zeros((2, 1)), np.zeros((3, 1)))

    assert even.layout.by_rows and even.rows == 2
    assert not uneven.layout.by_rows and uneven.rows == 0


def test_the_memory_of_forms_is_bounded() -> None:
    inbox = Inbox()
    first = inbox.request(np.zeros((1, 1))).layout

    for width in range(2, 400):
        inbox.request(np.zeros((1, width)), method=f"m{width}")

    assert inbox.request(np.zeros((1, 1))).layout is not first


def test_a_deadline_counts_from_the_arrival_and_may_be_missing() -> None:
    inbox = Inbox()

    assert inbox.request(np.zeros((1, 1)), received=100.0, timeout_ms=250).deadline == 100.25
    assert inbox.request(np.zeros((1, 1)), received=100.0).deadline == NEVER


def test_a_request_has_the_priority_it_asks_for_within_what_there_is() -> None:
    inbox = Inbox(policy=BatchPolicy(priority_levels=3, default_priority=2))

    given_priorities = [
        inbox.request(np.zeros((1, 1)), priority=asked).priority for asked in (0, 1, 3, 9)
    ]

    assert given_priorities == [2, 1, 3, 2]


def test_one_row_a_call_joins_none() -> None:
    inbox = Inbox(policy=BatchPolicy(max_rows=1))

    assert inbox.rows(1).layout.method.batchability is Batchability.NEVER
    assert inbox.layouts.declared()[0][0] is False


def test_an_item_is_kept_for_its_context() -> None:
    inbox = Inbox()

    assert (
        inbox.layouts.admit(item("7", [[1.0]], context={"a": "b"}), inbox.message()).item.context[
            "a"
        ]
        == "b"
    )
