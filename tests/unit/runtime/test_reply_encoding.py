"""Replies: to each open request its own rows and the call's figures, and once."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.runtime.execution.batch_call import BatchResult
from services.runtime.replies.encoding import ReplyEncoder
from services.runtime.requests.output_columns import sliceable_column, whole_column
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.errors import InvalidInput, from_work_error
from stellwerk.wire.tensors import to_numpy
from tests.fakes.work import Inbox

WRITER = ReplyEncoder("runtimes/r1", 1 << 20)


def replies(result: BatchResult, started: float = 10.0) -> list[work_pb2.WorkReply]:
    body = b"".join(frame for part in WRITER.replies(result, started) for frame in part.frames)
    return list(work_pb2.WorkReplyEnvelope.FromString(body).replies)


def result(*counts: int, width: int = 1, **fields: Any) -> BatchResult:
    inbox = Inbox()
    requests = [
        inbox.rows(*[0.0] * count, name=str(n), received=9.0) for n, count in enumerate(counts)
    ]
    total = sum(counts)
    made = sliceable_column if len(counts) > 1 else whole_column
    outputs = [
        made("y", np.arange(total * width, dtype=np.float64).reshape(total, width)),
        made("label", np.array([f"row {n}" for n in range(total)])),
    ]
    return BatchResult(
        requests, outputs, rows=total, input_ns=1, compute_ns=2, output_ns=3, **fields
    )


def test_each_reply_has_its_own_rows() -> None:
    first, second, third = replies(result(2, 1, 3))

    assert [to_numpy(reply.outputs[0]).tolist() for reply in (first, second, third)] == [
        [[0.0], [1.0]],
        [[2.0]],
        [[3.0], [4.0], [5.0]],
    ]
    assert to_numpy(second.outputs[1]).tolist() == [b"row 2"]
    assert [reply.rows for reply in (first, second, third)] == [2, 1, 3]


def test_the_calls_figures_are_in_each_and_one_leads() -> None:
    first, second = replies(result(2, 1))

    for reply in (first, second):
        assert (reply.batch_rows, reply.input_ns, reply.compute_ns, reply.output_ns) == (3, 1, 2, 3)
        assert (reply.queue_ns, reply.runtime) == (1_000_000_000, "runtimes/r1")
    assert (first.leads, second.leads) == (True, False)


def test_the_first_that_is_still_open_leads_and_the_others_are_not_answered() -> None:
    made = result(1, 1, 1)
    made.requests[0].open = False

    second, third = replies(made)

    assert (second.id, second.leads, to_numpy(second.outputs[0]).tolist()) == ("1", True, [[1.0]])
    assert (third.id, third.leads) == ("2", False)
    assert replies(made) == []


def test_a_lone_answer_keeps_its_shape() -> None:
    inbox = Inbox()
    made = BatchResult([inbox.rows(1, 2)], [whole_column("score", np.array(0.5))], rows=2)

    (reply,) = replies(made)

    assert list(reply.outputs[0].shape) == [] and reply.rows == 2 and reply.leads


def test_large_replies_do_not_lean_on_each_other() -> None:
    made = result(1, 2, 1, width=20_000)

    given = replies(made)

    start = 0
    for reply in given:
        expected = np.arange(start * 20_000, (start + reply.rows) * 20_000).reshape(-1, 20_000)
        np.testing.assert_array_equal(to_numpy(reply.outputs[0]), expected)
        start += reply.rows
    assert [reply.leads for reply in given] == [True, False, False]
    assert {reply.queue_ns for reply in given} == {1_000_000_000}


def test_replies_are_sorted_by_message() -> None:
    made = result(1, 1, 1, 1)
    shared = made.requests[0].work
    made.requests[1].work = shared

    found = WRITER.replies(made, 10.0)

    assert [(part.work is shared, len(part.frames)) for part in found] == [
        (True, 2),
        (False, 1),
        (False, 1),
    ]


def test_one_reply_leads_whatever_the_call_was_made_of() -> None:
    inbox = Inbox()
    requests = [inbox.group([0], [1]), inbox.rows(2, 3, name="item"), inbox.group([4], [5], [6])]
    outputs = [sliceable_column("y", np.arange(7.0))]

    parts = WRITER.replies(BatchResult(requests, outputs, rows=7), 10.0)

    sent = [work_pb2.WorkReplyEnvelope.FromString(frame) for part in parts for frame in part.frames]
    shared = [reply for one in sent for reply in (*one.replies, *[g.reply for g in one.groups])]
    assert [reply.leads for reply in shared] == [True, False, False]
    assert [list(reply.outputs[0].shape) for reply in shared] == [[1], [2], [1]]
    assert [to_numpy(reply.outputs[0]).tolist() for reply in shared[1:2]] == [[2.0, 3.0]]
    assert [part.each for part in parts] == [2, 1, 3]
    assert not any(request.open for request in requests)


def test_an_error_is_carried_with_the_figures() -> None:
    failed = result(1, 1)
    failed.columns, failed.error = (), InvalidInput("no", tensor="x")

    for reply in replies(failed):
        error = from_work_error(reply.error)
        assert (error.reason, error.message, error.metadata) == (
            "INVALID_INPUT",
            "no",
            {"tensor": "x"},
        )
        assert not reply.outputs and reply.batch_rows == 2


def test_an_item_without_a_call_has_its_wait_and_no_rows() -> None:
    (reply,) = work_pb2.WorkReplyEnvelope.FromString(
        WRITER.error("7", InvalidInput("no"), 0.5)
    ).replies

    assert (reply.id, reply.queue_ns, reply.rows, reply.batch_rows, reply.leads) == (
        "7",
        500_000_000,
        0,
        0,
        False,
    )
