"""One call for many: each gets what it would have got alone, and a bad neighbour costs nobody
anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.execution import batch_call
from services.runtime.execution.batch_call import BatchOutcome
from services.runtime.formats.port import Array, Arrays, LoadedModel
from services.runtime.requests.batchability import Batchability
from services.runtime.requests.request import Request
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput, ModelFailed, Overloaded
from tests.fakes import models
from tests.fakes.work import Inbox

ROWS = models.method(
    "predict", [models.spec("x", "FP64", -1, 1)], [models.spec("y", "FP64", -1, 1)]
)


class Model(LoadedModel):
    """Calls a function, and notes the rows of each call."""

    device = "cpu"
    memory_bytes = 1

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls: list[int] = []

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x = inputs["x"]
        self.calls.append(len(x))
        answer = self.function(x)
        return answer if isinstance(answer, dict) else {"y": np.asarray(answer)}

    def close(self) -> None: ...


def doubling(x: Array) -> dict[str, Array]:
    """Doubles its input; raises on rows that hold 13."""
    if (x == 13).any():
        raise ValueError("thirteen\n/secret/path")
    return {"y": x * 2, "z": x[:, :1]}  # type: ignore[operator]


def raising(error: BaseException) -> Any:
    def call(x: Array) -> Array:
        raise error

    return call


def ask(inbox: Inbox, *rows: Sequence[float], **fields: Any) -> list[Request]:
    return [inbox.rows(*values, name=str(number), **fields) for number, values in enumerate(rows)]


def execute(model: Model, requests: list[Request]) -> BatchOutcome:
    outcome = BatchOutcome(requests)
    batch_call.execute(model, outcome)
    return outcome


def answers(outcome: BatchOutcome) -> dict[str, Any]:
    """By request id: rows of the first output, or the error."""
    found: dict[str, Any] = {}
    for result in outcome.results:
        start = 0
        for request in result.requests:
            stop = start + request.rows
            if result.error is not None:
                found[request.id] = result.error
            else:
                first = result.columns[0]
                alone = len(result.requests) == 1
                data = bytes(first.data) if alone else first.slice_rows(start, stop)
                found[request.id] = np.frombuffer(data, tensors.DTYPES[first.datatype]).tolist()
            start = stop
    return found


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4), min_size=1, max_size=12))
def test_each_request_gets_what_it_would_have_got_alone(rows: list[list[int]]) -> None:
    given_answers = answers(execute(Model(doubling), ask(Inbox(), *rows)))

    assert len(given_answers) == len(rows)
    for number, values in enumerate(rows):
        if 13 in values:
            assert isinstance(given_answers[str(number)], ModelFailed)
        else:
            assert given_answers[str(number)] == [value * 2 for value in values]


def test_a_culprit_is_found_by_halving() -> None:
    model = Model(doubling)

    execute(model, ask(Inbox(), *[[13 if index == 5 else 1] for index in range(16)]))

    assert model.calls[0] == 16
    assert len(model.calls) == 9  # 16, then two halves on each of four levels


def test_what_is_answered_meanwhile_is_not_called_for_again() -> None:
    requests = ask(Inbox(), [1], [2], [3])

    def call(x: Array) -> dict[str, Array]:
        requests[1].open = False  # its deadline passes while the model works
        if len(x) == 3:
            raise ValueError
        return {"y": x}

    outcome = execute(Model(call), requests)

    assert answers(outcome) == {"0": [1.0], "2": [3.0]}


def test_the_error_carries_class_and_first_line_and_nothing_deeper() -> None:
    (result,) = execute(Model(doubling), ask(Inbox(), [13])).results

    assert (
        result.error is not None and result.error.message == "the model raised ValueError: thirteen"
    )
    assert isinstance(result.cause, ValueError)


@pytest.mark.parametrize("answer", [[1.0, 2.0, 3.0], 1.0, []])
@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_rows_is_the_models_failure(answer: Any, count: int) -> None:
    given_answers = answers(execute(Model(lambda x: answer), ask(Inbox(), *[[1, 2]] * count)))

    assert all(
        isinstance(error, ModelFailed) and "rows" in error.message
        for error in given_answers.values()
    )
    assert len(given_answers) == count


def test_a_method_that_does_not_work_by_rows_may_answer_anything() -> None:
    assert answers(execute(Model(lambda x: 0.5), ask(Inbox(), [1, 2], method="transform"))) == {
        "0": [0.5]
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), Overloaded), (SystemExit(3), ModelFailed), (InvalidInput("no"), InvalidInput)],
)
def test_whatever_the_model_raises_is_an_error_of_the_vocabulary(
    error: BaseException, kind: type[Exception]
) -> None:
    (result,) = execute(Model(raising(error)), ask(Inbox(), [1])).results

    assert isinstance(result.error, kind)


def test_an_answer_that_no_tensor_can_carry_is_a_failure_of_the_rows_that_have_it() -> None:
    def call(x: Array) -> Array:
        return np.array(
            [[None if value == 2 else str(value)] for value in x[:, 0].tolist()], dtype=object
        )

    outcome = execute(Model(call), ask(Inbox(), [1], [2], [3]))

    failed = {
        result.requests[0].id for result in outcome.results if isinstance(result.error, ModelFailed)
    }
    assert failed == {"1"}


def test_an_unknown_output_is_the_fault_of_all_who_asked_for_it_and_costs_one_call() -> None:
    model = Model(doubling)

    (result,) = execute(model, ask(Inbox(), [1], [2], outputs=["w"])).results

    assert isinstance(result.error, InvalidInput) and "gives y, z" in result.error.message
    assert model.calls == [2]


def test_a_call_tells_its_rows_and_times() -> None:
    (result,) = execute(Model(doubling), ask(Inbox(), [1, 2], [3])).results

    assert result.rows == 3
    assert result.compute_ns > 0 and result.input_ns > 0 and result.output_ns > 0


def graph() -> Inbox:
    """A version whose rows are declared to be free, and promised nothing."""
    return Inbox(models.version("onnx", ROWS))


def test_a_method_is_probed_once_and_batched_from_then_on() -> None:
    inbox, model = graph(), Model(lambda x: x * 2)

    first = answers(execute(model, ask(inbox, [1], [2], [3])))
    model.calls.clear()
    second = answers(execute(model, ask(inbox, [4], [5], [6])))

    assert first == {"0": [2.0], "1": [4.0], "2": [6.0]}
    assert second == {"0": [8.0], "1": [10.0], "2": [12.0]}
    assert model.calls == [3]


INTERACTING = {
    "a state that is carried on": lambda x: np.cumsum(x, axis=0),
    "a state that is carried back": lambda x: np.cumsum(x[::-1], axis=0)[::-1],
    "a mean over the rows": lambda x: x - x.mean(),
    "positions": lambda x: x + np.arange(len(x))[:, None],
    "one answer for all": lambda x: x.sum(keepdims=True),
    "a number": lambda x: x.sum(),
}


@pytest.mark.parametrize("function", INTERACTING.values(), ids=INTERACTING.keys())
@pytest.mark.parametrize(
    "rows", [[[1], [2], [3]], [[2], [2], [2]], [[0], [0]], [[1, 5], [2], [3, 4]]]
)
def test_rows_that_depend_on_each_other_are_never_batched(
    function: Any, rows: list[list[int]]
) -> None:
    inbox, model = graph(), Model(function)

    outcome = execute(model, ask(inbox, *rows))
    again = execute(model, ask(inbox, *rows))

    alone = {
        str(number): function(np.array(values, float)[:, None])
        for number, values in enumerate(rows)
    }
    expected = {name: np.asarray(answer).ravel().tolist() for name, answer in alone.items()}
    assert answers(outcome) == answers(again) == expected
    assert outcome.batching_refused and not again.batching_refused


def test_a_request_that_fails_alone_settles_no_probe() -> None:
    inbox, model = graph(), Model(doubling)

    bad = answers(execute(model, ask(inbox, [13], [1])))
    execute(model, ask(inbox, [1], [2]))

    assert isinstance(bad["0"], ModelFailed) and bad["1"] == [2.0]
    assert inbox.rows(1).layout.method.batchability is Batchability.ALWAYS


def test_a_model_that_takes_no_second_row_is_left_alone_after_three_attempts() -> None:
    def one_row(x: Array) -> Array:
        if len(x) != 1:
            raise ValueError("one row")
        return x

    inbox, model = graph(), Model(one_row)

    outcomes = [execute(model, ask(inbox, [1], [2])) for _ in range(3)]

    assert [answers(outcome) for outcome in outcomes] == [{"0": [1.0], "1": [2.0]}] * 3
    assert [outcome.batching_refused for outcome in outcomes] == [False, False, True]


@pytest.mark.parametrize("known", [Batchability.NEVER, Batchability.PROBE])
def test_members_are_called_alone_once_their_method_is_not_known_to_be_batched(
    known: Batchability,
) -> None:
    inbox, model = Inbox(), Model(np.cumsum)
    group = inbox.group([1], [2], [3])
    group.layout.method.batchability = known  # a probe of another slot has just ended

    outcome = execute(model, [group])

    assert [list(result.requests[0].members) for result in outcome.results] == [[0], [1], [2]]
    assert model.calls[-3:] == [1, 1, 1]
    assert group.layout.method.batchability is Batchability.NEVER
