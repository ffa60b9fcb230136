"""The parameters extension over REST: those that the protocol reserves, and classification."""

from __future__ import annotations

from typing import Any

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.expect import client_error, equal
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample

CASES = Cases(Area.PARAMETERS, Transport.REST, "extension_schedule_policy.md", "schedule_policy")
CLASSES = Cases(Area.PARAMETERS, Transport.REST, "extension_classification.md", "classification")
_SCORES = Tensor("INPUT0", "FP32", (1, 4), [1.0, 5.0, 10.0, 4.0])


@CASES.specified("priority and timeout are taken")
def _schedule(s: Subject) -> None:
    parameters = {"priority": 1, "timeout": 5_000_000}
    echoed(s.infer(s.echo(), [sample("FP32")], parameters=parameters), sample("FP32"), "OUTPUT0")


@CASES.sensible("A priority or timeout that is no number is a client error")
def _odd_schedule(s: Subject) -> None:
    for parameters in ({"priority": "high"}, {"timeout": "soon"}, {"priority": True}):
        client_error(s.post(s.echo(), [sample("FP32")], parameters=parameters))


def _classified(s: Subject, count: Any) -> Any:
    wanted = [{"name": "OUTPUT0", "parameters": {"classification": count}}]
    return s.post(s.echo(), [_SCORES], outputs=wanted)


@CLASSES.specified("classification gives the largest values with their places, largest first")
def _classification(s: Subject) -> None:
    found = binary.outputs_of(_classified(s, 2))["OUTPUT0"]
    equal(found.datatype, "BYTES", "datatype")
    parts = [item.split(b":")[:2] for item in found.items]
    equal(
        [(float(value), int(place)) for value, place in parts],
        [(10.0, 2), (5.0, 1)],
        "value and place",
    )


@CLASSES.sensible("A classification that is no number is a client error")
def _odd_classification(s: Subject) -> None:
    client_error(_classified(s, "two"))
