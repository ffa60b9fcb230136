"""The error vocabulary: each class is told apart by code and reason, and crosses the broker as
itself.
"""

from __future__ import annotations

import grpc
import pytest

from stellwerk.job.v1.work_pb2 import WorkError
from stellwerk.wire import errors
from stellwerk.wire.errors import BY_CODE, BY_REASON, Conflict, Internal, Overloaded, ServiceError

_CLASSES = sorted(BY_REASON.values(), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", _CLASSES)
def test_every_error_crosses_the_broker_as_itself(cls: type[ServiceError]) -> None:
    error = cls("say what to do", retry_after_ms=1234, model="m", count=3)

    carried = WorkError.FromString(errors.to_work_error(error).SerializeToString())
    back = errors.from_work_error(carried)

    assert type(back) is cls
    assert (back.message, back.metadata, back.retry_after) == (
        "say what to do",
        {"model": "m", "count": "3"},
        1234,
    )


def test_no_two_classes_share_a_reason() -> None:
    ours = [cls for cls in errors._all_classes() if cls.__module__ == errors.__name__]
    reasons = [cls.reason for cls in ours if cls is not ServiceError]
    # Internal stands for ServiceError's own pair.
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)
def test_every_status_has_a_class_of_its_own_code(code: grpc.StatusCode) -> None:
    error = errors.rebuild(code, "", "message")

    assert type(error) is BY_CODE.get(code, Internal)


@pytest.mark.parametrize(
    ("code", "general"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, errors.NotReady),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotImplementedHere),
        (grpc.StatusCode.OUT_OF_RANGE, errors.InvalidInput),
    ],
)
def test_a_code_that_several_errors_share_stands_for_the_general_one(
    code: grpc.StatusCode, general: type[ServiceError]
) -> None:
    assert type(errors.rebuild(code, "", "message")) is general


def test_an_unknown_reason_becomes_the_codes_general_class() -> None:
    assert type(errors.rebuild(grpc.StatusCode.ABORTED, "FROM_THE_FUTURE", "m")) is Conflict
    assert type(errors.rebuild(grpc.StatusCode.ABORTED, Overloaded.reason, "m")) is Conflict
    assert type(errors.from_work_error(WorkError(code=4711, message="m"))) is Internal


def test_only_errors_that_pass_by_themselves_ask_to_be_tried_again() -> None:
    retrying = {cls.code for cls in _CLASSES if cls.retry_after_ms}

    assert retrying == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
