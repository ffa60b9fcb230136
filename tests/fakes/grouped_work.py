"""Calls as a router may send them: one by one, or those of one form as groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from stellwerk.wire.tensors import from_numpy
from tests.fakes.runtime_inside import member_id

PRINCIPAL = "principals/a"


@dataclass(frozen=True)
class Form:
    """What calls have in common: the rows of each input, X of FP64 and, unless 0, Z of INT32.

    X with 0 rows is a single number without dimensions.
    """

    rows: int = 1
    width: int = 2
    other_rows: int = 0
    method: str = "predict"
    outputs: tuple[str, ...] = ()
    priority: int = 0
    datatype: Any = np.float64


@dataclass(frozen=True)
class Call:
    """One call. All its numbers are `value`."""

    value: int
    timeout_ms: int = 60_000
    traced: bool = False

    def item(self, form: Form, name: str, number: int) -> work_pb2.WorkItem:
        """Returns the call as an item; `number` tells its request id from others'."""
        shape = (form.rows, form.width) if form.rows else ()
        inputs = [from_numpy("X", np.full(shape, self.value, form.datatype))]
        if form.other_rows:
            inputs.append(from_numpy("Z", np.full((form.other_rows, 1), self.value, np.int32)))
        context = {"x-principal": PRINCIPAL, "x-request-id": f"req-{number}"}
        if self.traced:
            context["traceparent"] = f"00-{number:032x}-{'b' * 16}-01"
        return work_pb2.WorkItem(
            id=name,
            method=form.method,
            inputs=inputs,
            outputs=form.outputs,
            timeout_ms=self.timeout_ms,
            priority=form.priority,
            context=context,
        )


@dataclass(frozen=True)
class Batch:
    """Calls of one form that the router has at the same time."""

    form: Form
    calls: Sequence[Call]


def group_of(name: str, items: Sequence[work_pb2.WorkItem]) -> work_pb2.WorkGroup:
    """Returns items of one form as a group."""
    form = columns.join(items)
    form.context["x-principal"] = PRINCIPAL
    traces = [item.context.get("traceparent", "") for item in items]
    return work_pb2.WorkGroup(
        id=name,
        form=form,
        timeouts_ms=[item.timeout_ms for item in items],
        request_ids=[item.context["x-request-id"] for item in items],
        traceparents=traces if any(traces) else [],
    )


def envelope(
    batches: Sequence[Batch], prefix: str, *, grouped: bool
) -> tuple[work_pb2.WorkEnvelope, list[str]]:
    """Returns the calls as one message, and the name of each one's answer. A batch of one call
    travels as an item, the others as groups if `grouped`; the order is the same in both.
    """
    made = work_pb2.WorkEnvelope()
    names: list[str] = []
    number = 0
    ordered = sorted(batches, key=lambda batch: len(batch.calls) > 1)
    for index, batch in enumerate(ordered):
        items = []
        for place, call in enumerate(batch.calls):
            name = member_id(f"{prefix}-{index}", place)
            items.append(call.item(batch.form, name, number))
            names.append(name)
            number += 1
        if grouped and len(items) > 1:
            made.groups.append(group_of(f"{prefix}-{index}", items))
        else:
            made.items.extend(items)
    return made, names


def cancellation(names: Sequence[str]) -> work_pb2.Cancellation:
    """Returns the cancellation of these calls, however they were sent."""
    made = work_pb2.Cancellation(ids=names)
    for name in names:
        group, _, member = name.rpartition("/")
        made.groups.add(id=group, members=[int(member)])
    return made
