"""The same calls, sent as groups and one by one, have the same answers, metrics and log lines."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from services.chassis.broker.port import Message
from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.topology import WORK_CANCELLED
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.grouped_work import Batch, Call, Form, cancellation, envelope
from tests.fakes.runtime_inside import Rig, rig

# Values on which the model raises, answers too many rows, and answers what no tensor can carry.
RAISES, MORE_ROWS, UNCARRIED = 13, 14, 15
# The timeout of a call that expires while the model is held.
SHORT_MS = 1


class Model(LoadedModel):
    """Doubles X, beside a text for each row; holds each call for a turn until it is set free."""

    device, memory_bytes, streams = "cpu", 1, frozenset({"count"})

    def __init__(self, interacts: bool) -> None:
        self.interacts = interacts
        self.calls: list[list[float]] = []
        self.turns = threading.Semaphore(0)
        self.free = False

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        x: Any = inputs["X"]
        table = np.atleast_2d(x)
        self.calls.append(table[:, 0].tolist())
        if not self.free:
            self.turns.acquire(timeout=10)
        if (x == RAISES).any():
            raise ValueError("thirteen")
        y = np.concatenate([x, x[:1]]) if (x == MORE_ROWS).any() else 2 * x
        if self.interacts:
            y = y + len(table)
        texts = [None if row[0] == UNCARRIED else "t" * int(row[0] % 5) for row in table]
        text = np.array([[each, "end"] for each in texts], dtype=object)
        return {"y": y, "text": text, "none": np.zeros((len(table), 0))}

    def close(self) -> None: ...


@dataclass(frozen=True)
class Serving:
    """How the version is served."""

    format: str = "skops"
    batching: str = ""
    max_batch_size: int = 0
    preferred: tuple[int, ...] = ()
    response_cache: bool = False
    priority_levels: int = 0
    interacts: bool = False
    max_message_bytes: int = 1 << 26

    def version(self) -> repository_pb2.ModelVersion:
        options = {"batching": self.batching} if self.batching else {}
        signature = []
        if self.format == "onnx":
            inputs = [models.spec("X", "FP64", -1, 2)]
            outputs = [models.spec("y", "FP64", -1, 2), models.spec("text", "BYTES", -1, 2)]
            signature = [models.method("predict", inputs, outputs)]
        made = models.version(self.format, *signature, **options)
        made.serving.max_batch_size = self.max_batch_size
        made.serving.preferred_batch_sizes[:] = self.preferred
        made.serving.response_cache = self.response_cache
        made.serving.priority_levels = self.priority_levels
        return made


@dataclass(frozen=True)
class Plan:
    """What is sent, and by their places those who leave before the call and during it."""

    serving: Serving
    batches: Sequence[Batch]
    loading: bool = False
    leave_early: frozenset[int] = frozenset()
    leave_late: frozenset[int] = frozenset()


FORMS = st.builds(
    Form,
    rows=st.sampled_from([1, 1, 1, 1, 2, 2, 3, 3, 0]),
    width=st.sampled_from([2, 2, 2, 3]),
    other_rows=st.sampled_from([0, 0, 0, 1, 2]),
    method=st.sampled_from(["predict"] * 6 + ["transform", "count", ""]),
    outputs=st.sampled_from([(), (), ("y",), ("text", "y"), ("none",), ("unknown",)]),
    priority=st.integers(0, 3),
    datatype=st.sampled_from([np.float64] * 5 + [np.float16]),
)
CALLS = st.builds(
    Call,
    value=st.sampled_from([*range(8), *range(8), RAISES, MORE_ROWS, UNCARRIED]),
    timeout_ms=st.sampled_from([60_000] * 6 + [SHORT_MS, 0]),
    traced=st.booleans(),
)
SERVINGS = st.builds(
    Serving,
    format=st.sampled_from(["skops", "skops", "skops", "onnx"]),
    batching=st.sampled_from(["", "", "", "rows", "off"]),
    max_batch_size=st.sampled_from([0, 0, 1, 2, 3, 5, 8]),
    preferred=st.sampled_from([(), (), (2,), (3, 7)]),
    response_cache=st.sampled_from([False, False, True]),
    priority_levels=st.sampled_from([0, 2]),
    interacts=st.sampled_from([False, False, True]),
)
BATCHES = st.builds(Batch, FORMS, st.lists(CALLS, min_size=1, max_size=9))
PLANS = st.builds(
    Plan,
    SERVINGS,
    st.lists(BATCHES, min_size=1, max_size=5),
    loading=st.booleans(),
    leave_early=st.frozensets(st.integers(0, 30), max_size=4),
    leave_late=st.frozensets(st.integers(0, 30), max_size=4),
)


class Run:
    """One way of sending a plan's calls, and what became of them."""

    def __init__(self, made: Rig, plan: Plan, model: Model, *, grouped: bool) -> None:
        self.made = made
        self.plan = plan
        self.model = model
        self.grouped = grouped
        self.version = made.add(plan.serving.version())

    async def take_place(self) -> None:
        """Holds the load or the model, sends the calls and lets some leave; then lets it go on and
        sends the same calls again.
        """
        made, plan = self.made, self.plan
        await made.serve(self.version)
        if plan.loading:
            made.repository.gate.clear()
        else:
            plug, _ = envelope([Batch(Form(width=2), [Call(99)])], "plug", grouped=False)
            plugged = asyncio.create_task(made.ask_all(self.version, plug))
            await eventually(lambda: len(self.model.calls) == 1)
        sent, names = envelope(plan.batches, "first", grouped=self.grouped)
        waiting = asyncio.gather(*made.expect(sent))
        await made.send(self.version, sent.SerializeToString())
        calls = [call for batch in _ordered(plan.batches) for call in batch.calls]
        short = [name for name, call in zip(names, calls, strict=True) if _expires(call)]
        await eventually(lambda: made.consumer.in_flight >= len(names) or waiting.done())
        await eventually(lambda: all(made.answers[name].done() for name in short))
        await self._leave(plan.leave_early, names, calls)
        before = len(self.model.calls)
        made.repository.gate.set()
        if before:
            self.model.turns.release()
        await eventually(lambda: len(self.model.calls) > before or waiting.done())
        await self._leave(plan.leave_late, names, calls)
        self.model.free = True
        self.model.turns.release()
        await asyncio.wait_for(waiting, 20)
        if not plan.loading:
            await plugged
        again, _ = envelope(plan.batches, "again", grouped=self.grouped)
        for item in again.items:
            item.timeout_ms = 0
        for group in again.groups:
            group.timeouts_ms[:] = [0] * len(group.timeouts_ms)
        await made.ask_all(self.version, again)
        await asyncio.wait_for(made.consumer.idle(), 5)

    async def _leave(
        self, places: frozenset[int], names: Sequence[str], calls: Sequence[Call]
    ) -> None:
        # Where no call of the message has a deadline, the router cancels none.
        watched = any(call.timeout_ms for call in calls)
        leaving = [names[place] for place in sorted(places) if place < len(names) and watched]
        body = cancellation(leaving).SerializeToString()
        await self.made.broker.subscribe(WORK_CANCELLED, self.made.consumer.cancel)
        await self.made.router.publish_event(WORK_CANCELLED, Message(body))
        await eventually(lambda: all(self.made.answers[name].done() for name in leaving))

    def outcome(self) -> dict[str, Any]:
        """Everything that must not depend on how the calls were sent."""
        made = self.made
        return {
            "replies": {reply.id: _shown(reply) for reply in made.replies},
            "twice": [name for name, n in Counter(r.id for r in made.replies).items() if n > 1],
            "calls": sorted(r.batch_rows for r in made.replies if r.leads),
            "model": self.model.calls,
            "metrics": sorted(
                (sample.name, sorted(sample.labels.items()), sample.value)
                for metric in made.registry.collect()
                for sample in metric.samples
                # Times differ from run to run, and so does the memory that a load takes.
                if not {"seconds", "created", "resident"} & set(sample.name.split("_"))
            ),
            "lines": _lines(made, "model_call"),
            "details": sorted(_lines(made, "model_called"), key=repr),
            "raised": sorted(_lines(made, "model_raised"), key=repr),
            "errors": made.log.errors,
            "refused": _lines(made, "joining_refused"),
        }


def _ordered(batches: Sequence[Batch]) -> list[Batch]:
    return sorted(batches, key=lambda batch: len(batch.calls) > 1)


def _expires(call: Call) -> bool:
    return call.timeout_ms == SHORT_MS


def _shown(reply: work_pb2.WorkReply) -> Any:
    """Returns what a caller and its statistics see of a reply, but for times."""
    shown = work_pb2.WorkReply()
    shown.CopyFrom(reply)
    for name in ("queue_ns", "compute_ns", "input_ns", "output_ns", "leads"):
        shown.ClearField(name)  # type: ignore[arg-type]
    timed = (bool(reply.compute_ns), bool(reply.input_ns), bool(reply.output_ns))
    return str(shown), reply.batch_rows and timed


def _lines(made: Rig, wanted: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in fields.items() if not key.endswith("_ms")}
        | {"timeout_ms": fields.get("timeout_ms")}
        | {"exc_info": repr(fields.get("exc_info"))}
        for event, fields in made.log.lines
        if event == wanted
    ]


async def run(folder: Path, plan: Plan, *, grouped: bool) -> tuple[dict[str, Any], Rig]:
    model = Model(plan.serving.interacts)
    options = {"slots": 1, "model": model, "max_message_bytes": plan.serving.max_message_bytes}
    async with rig(Path(tempfile.mkdtemp(dir=folder)), **options) as made:
        one = Run(made, plan, model, grouped=grouped)
        await one.take_place()
        return one.outcome(), made


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(Plan(Serving(), [Batch(Form(rows=0), [Call(1), Call(2)])]))
@given(PLANS)
def test_groups_say_what_their_members_say_one_by_one(tmp_path: Path, plan: Plan) -> None:
    one_by_one, _ = asyncio.run(run(tmp_path, plan, grouped=False))
    grouped, made = asyncio.run(run(tmp_path, plan, grouped=True))

    for part, expected in one_by_one.items():
        assert grouped[part] == expected, part
    for reply in made.group_replies:
        event(f"replies to {min(3, len(reply.members))} members or all")
