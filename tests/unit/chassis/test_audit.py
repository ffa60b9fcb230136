"""What goes to the ledger: nothing twice, nothing lost while it is away, a clear error when it must
not wait.
"""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from services.chassis.access.audit import AuditTrail, RemoteAuditSink
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire.errors import DeadlinePassed, NotPermitted, ServiceError, Unavailable
from tests.fakes.ledger import FakeLedger

REFUSAL, OUTCOME = audit.AuditRecord.KIND_REFUSAL, audit.AuditRecord.KIND_OUTCOME


def record(kind: Any = REFUSAL, **changes: Any) -> audit.AuditRecord:
    values: dict[str, Any] = {
        "principal": "principals/ada",
        "method": "/x",
        "outcome": "NOT_PERMITTED",
        **changes,
    }
    return audit.AuditRecord(kind=kind, **values)


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def trail(ledger: FakeLedger) -> AuditTrail:
    return AuditTrail(ledger, structlog.get_logger())


async def test_like_refusals_become_one_record_with_a_count(
    trail: AuditTrail, ledger: FakeLedger
) -> None:
    for number in range(3):
        trail.note(record(request_id=f"r{number}"))
    trail.note(record(principal="principals/eve"))

    await trail.flush()

    assert [(r.principal, r.count) for r in ledger.records] == [
        ("principals/ada", 3),
        ("principals/eve", 1),
    ]


async def test_every_outcome_keeps_its_own_record(trail: AuditTrail, ledger: FakeLedger) -> None:
    for number in range(3):
        trail.note(record(OUTCOME, outcome="OK", request_id=f"r{number}"))

    await trail.flush()

    assert [r.request_id for r in ledger.records] == ["r0", "r1", "r2"]


async def test_what_cannot_be_written_goes_on_waiting(
    trail: AuditTrail, ledger: FakeLedger
) -> None:
    ledger.away = True
    trail.note(record())
    with pytest.raises(Unavailable):
        await trail.flush()
    trail.note(record())
    ledger.away = False

    await trail.flush()
    await trail.flush()

    assert [r.count for r in ledger.records] == [2]


class Channel:
    """A channel whose every call raises."""

    def __init__(self, error: ServiceError) -> None:
        self._error = error

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        async def call(*_: Any, **__: Any) -> Any:
            raise self._error

        return call


@pytest.mark.parametrize("error", [Unavailable("away"), DeadlinePassed("slow")])
async def test_a_ledger_that_is_away_is_named_as_the_reason(error: ServiceError) -> None:
    with pytest.raises(Unavailable, match="nothing is changed"):
        await RemoteAuditSink(Channel(error)).append([record()])


async def test_a_ledger_that_refuses_is_not_called_away() -> None:
    with pytest.raises(NotPermitted):
        await RemoteAuditSink(Channel(NotPermitted("no"))).append([record()])
