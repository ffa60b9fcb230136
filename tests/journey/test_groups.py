"""Calls that travel as a group end as the same calls made one by one: answers, errors, the audit
ledger, metrics and statistics; also when a runtime dies with groups in hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from tests.journey.doors import Answer, Door, door_of
from tests.journey.probe import FAULTY, Probe, row
from tests.journey.stack import Platform, serving_runtime, soon, unchanged

CALLS = 120
BOUND = 8
# Outcomes that are counted where a call was when it left or was late: in the router or a runtime.
# A gRPC client may end a late call before the gateway does, which then counts it as one that left.
PLACE = re.compile(
    r'"(CANCELLED|DEADLINE_PASSED|deadline_passed|cancelled)"|^api_gateway.*"DEADLINE_EXCEEDED"'
)
# Calls of the bounded model that are made when only half its queue is free.
CROWD = 12
# Seconds that late calls have while their model is held.
SHORT = 1.0
# What a call is in the router that a runtime answered with an error.
ERROR = '"ERROR"'
FORGED = "a.b.c"
INFER = "/inference.GRPCInferenceService/ModelInfer"

Kind = Literal["good", "bad", "leaves", "late"]


@dataclass(frozen=True)
class Ask:
    """One call and what becomes of it."""

    kind: Kind
    model: str
    rows: list[list[float]]
    token: str = ""
    deadline: float | None = None


class Cast:
    """The models and callers of one run; nobody has met them before."""

    def __init__(self, lab: Platform, folder: Path) -> None:
        self.lab = lab
        _, newest = lab.call("GET", "/v1/audit/records?pageSize=1")
        # Records of the ledger up to this one are not of this run.
        self.sequence = int(newest["records"][0]["sequence"])
        self.tag = uuid.uuid4().hex[:8]
        self.joined = Probe(lab, folder / "joined", f"joined-{self.tag}")
        self.bounded = Probe(
            lab,
            folder / "bounded",
            f"bounded-{self.tag}",
            options={"batching": "off"},
            serving={"max_queue_size": BOUND},
        )
        self.ann, self.bob = lab.token_for("caller"), lab.token_for("caller")
        self.stranger = lab.token_for("caller", "elsewhere")

    def asks(self) -> list[Ask]:
        """The calls but for those of the crowd, in an order that mixes all kinds."""
        model, ann, bob = self.joined.name, self.ann, self.bob
        asks = []
        for at in range(12):
            value = float(10 * at + 1)
            asks += [
                Ask("good", model, [row(value)], ann),
                Ask("good", model, [row(value + 1)], bob),
                Ask("good", model, [row(value + 2), row(value + 3)], ann),
            ]
            if at % 3 == 0:
                asks += [
                    Ask("bad", model, [row(FAULTY)], ann),
                    Ask("bad", model, [[value, 0.0]], bob),
                    Ask("bad", model, [row(value)], self.stranger),
                    Ask("bad", model, [row(value)], FORGED),
                    Ask("bad", f"nobody-{self.tag}", [row(value)], ann),
                    Ask("leaves", model, [row(value)], ann),
                    Ask("leaves", model, [row(value)], bob),
                    Ask("late", model, [row(value)], ann, SHORT),
                    Ask("late", model, [row(value)], bob, SHORT),
                ]
        return asks

    def neutral(self, text: str) -> str:
        """Returns a text without what differs from run to run: names, ids and times."""
        text = re.sub(r"(caller)-\d+", r"\1", text.replace(self.tag, "RUN"))
        return re.sub(r"\d+(\.\d+)? s\b", "N s", text)

    def waiting(self) -> float:
        """Calls of the joined model that wait in the router or are under way."""
        return held(self.lab, self.joined)


def held(lab: Platform, probe: Probe) -> float:
    names = ("stellwerk_queued", "stellwerk_in_flight")
    return sum(lab.metric(name, probe.version) for name in names)


async def ask(door: Door, call: Ask, id: str) -> Answer:
    return await door.infer(
        call.model, call.rows, token=call.token, deadline=call.deadline, request_id=id
    )


async def crowd_of(door: Door, cast: Cast, together: bool, id: str) -> list[asyncio.Task[Answer]]:
    """Fills half of the bounded model's queue, then makes CROWD calls at once or one by one."""
    lab, probe = cast.lab, cast.bounded
    tasks: list[asyncio.Task[Answer]] = []

    async def begin(count: int) -> None:
        """Begins calls; returns when each waits or was refused."""
        before = held(lab, probe) - sum(not task.done() for task in tasks)
        for _ in range(count):
            call = Ask("good", probe.name, [row(5000.0 + len(tasks))], cast.ann)
            tasks.append(asyncio.create_task(ask(door, call, f"{id}-{len(tasks)}")))

        def accounted() -> bool:
            open_calls = sum(not task.done() for task in tasks)
            return held(lab, probe) - before == open_calls

        await asyncio.sleep(0)
        await soon(accounted, 10, "each call of the crowd waits or is refused")

    while lab.metric("stellwerk_queued", probe.version) < BOUND / 2:
        await begin(1)
    if together:
        await begin(CROWD)
    else:
        for _ in range(CROWD):
            await begin(1)
    return tasks


async def made_together(door: Door, cast: Cast, id: str) -> list[Answer | None]:
    """Makes all calls at once while the runtime is held; None for a caller that left."""
    asks = cast.asks()
    async with cast.joined.busy(door):
        before = cast.waiting()
        tasks = [asyncio.create_task(ask(door, call, f"{id}-{at}")) for at, call in enumerate(asks)]
        waits = sum(call.kind in ("good", "leaves") for call in asks)
        late = [task for task, call in zip(tasks, asks, strict=True) if call.kind == "late"]
        await asyncio.gather(*late)
        # What is bad by its form alone, or by its caller, has been refused by now.
        await soon(lambda: cast.waiting() - before >= waits, 10, "the calls wait")
        leaving = [task for task, call in zip(tasks, asks, strict=True) if call.kind == "leaves"]
        most = cast.waiting()
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        await soon(lambda: cast.waiting() == most - len(leaving), 10, "who left waits no more")
        tasks += await crowd_of(door, cast, True, f"{id}-crowd")
    await asyncio.wait(tasks)
    return [None if task.cancelled() else task.result() for task in tasks]


async def made_one_by_one(door: Door, cast: Cast, id: str) -> list[Answer | None]:
    """Makes each call when the one before has ended, those that leave or are late while the model
    is held.
    """
    asks = cast.asks()
    answers: list[Answer | None] = [None] * len(asks)
    async with cast.joined.busy(door):
        before = cast.waiting()
        for at, call in enumerate(asks):
            if call.kind == "late":
                answers[at] = await ask(door, call, f"{id}-{at}")
            elif call.kind == "leaves":
                task = asyncio.create_task(ask(door, call, f"{id}-{at}"))
                await soon(lambda: cast.waiting() == before + 1, 10, "the call waits")
                task.cancel()
                await asyncio.wait([task])
                await soon(lambda: cast.waiting() == before, 10, "who left waits no more")
        crowd = await crowd_of(door, cast, False, f"{id}-crowd")
    for at, call in enumerate(asks):
        if call.kind in ("good", "bad"):
            answers[at] = await ask(door, call, f"{id}-{at}")
    return answers + list(await asyncio.gather(*crowd))


def told(cast: Cast, answers: list[Answer | None]) -> list[Any]:
    """What each caller heard, those of the crowd in no order: any of them may be refused."""

    def heard(answer: Answer) -> tuple[Any, ...]:
        # Where a late call was when its time was up, its error says in other words.
        message = "late" if answer.status == 504 else cast.neutral(answer.message)
        return (answer.status, answer.values, answer.version, message)

    said = [answer and heard(answer) for answer in answers]
    count = len(cast.asks())
    crowd = Counter((each[0], each[3]) for each in said[count:] if each)
    return [*said[:count], crowd]


def counted(cast: Cast) -> Counter[str]:
    """The metrics that count calls, of all processes."""
    names = "http_requests|rpc|rejections|model_calls"
    wanted = re.compile(rf"stellwerk_({names})_total\{{(.*)\}} (\S+)")
    found: Counter[str] = Counter()
    for process, address in cast.lab.ready["metrics"].items():
        with urllib.request.urlopen(address, timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                match = wanted.match(line)
                calls = match and ("infer" in line or INFER in line or cast.tag in line)
                if match and calls and not PLACE.search(f"{process} {match[2]}"):
                    # A runtime's error is one code, the router's own another.
                    labels = match[2].replace('"DEADLINE_EXCEEDED"', ERROR)
                    key = cast.neutral(f"{process} {match[1]} {labels}")
                    found[key] += round(float(match[3]))
    return found


async def settled(cast: Cast, before: Counter[str], answers: list[Answer | None]) -> Counter[str]:
    """The metrics when they change no more, which is not before the gateway has counted all answers
    but the late ones: it counts when it has time.
    """
    answered = sum(answer is not None and answer.status != 504 for answer in answers)
    seen = [await asyncio.to_thread(counted, cast)]

    def same() -> bool:
        seen.append(counted(cast))
        new = seen[-1] - before
        at_gateway = sum(count for key, count in new.items() if key.startswith("api_gateway "))
        return at_gateway >= answered and seen[-1] == seen[-2]

    await soon(same, 10, "the metrics change no more")
    return seen[-1]


def records_since(lab: Platform, sequence: int) -> Iterator[dict[str, Any]]:
    """The ledger's records after that one, newest first: page by page, for there are many."""
    path = "/v1/audit/records?pageSize=100"
    while path:
        _, answer = lab.call("GET", path)
        new = [record for record in answer["records"] if int(record["sequence"]) > sequence]
        yield from new
        token = urllib.parse.quote(answer.get("nextPageToken", ""))
        more = token and len(new) == len(answer["records"])
        path = more and f"/v1/audit/records?pageSize=100&pageToken={token}"


def refusals(cast: Cast, id: str) -> Counter[tuple[str, ...]]:
    """The run's refusals in the ledger, each as often as it counts; other tests' may come too."""
    found: Counter[tuple[str, ...]] = Counter()
    for record in records_since(cast.lab, cast.sequence):
        if record["kind"] == "KIND_REFUSAL" and record["requestId"].startswith(id):
            fields = ("principal", "method", "resource", "outcome")
            key = tuple(cast.neutral(record.get(field, "")) for field in fields)
            found[key] += int(record.get("count", 1))
    return found


def without_late(cast: Cast, metrics: Counter[str]) -> Counter[str]:
    """The metrics without the errors that late calls are in the router: one that its client ends
    before the platform does is none there.
    """
    (key,) = [key for key in metrics if key.startswith("router rpc ") and ERROR in key]
    raised = sum(call.rows == [row(FAULTY)] for call in cast.asks())
    late = sum(call.kind == "late" for call in cast.asks())
    assert raised <= metrics[key] <= raised + late
    metrics[key] = raised
    return +metrics


def statistics(cast: Cast) -> list[Any]:
    """The models' counts of requests by how they ended, and of rows. A late call counts as failed,
    or as one that left if its client ends it before the platform does: it is left out.
    """
    own = [call for call in cast.asks() if call.model == cast.joined.name]
    late = sum(call.kind == "late" for call in own)
    bad = sum(call.kind == "bad" and call.token in (cast.ann, cast.bob) for call in own)
    found: list[Any] = []
    for probe in (cast.joined, cast.bounded):
        _, answer = cast.lab.call("GET", f"/v2/models/{probe.name}/stats")
        (stats,) = answer["model_stats"]
        ends = stats["inference_stats"]
        succeeded, failed = (int(ends[end].get("count", 0)) for end in ("success", "fail"))
        if probe is cast.joined:
            assert bad <= failed <= bad + late
            failed = bad
        found.append([succeeded, failed, int(stats["inference_count"])])
    return found


def frames(lab: Platform, id: str) -> list[set[str]]:
    """The request ids of a run's calls that came to the router together, for each frame."""
    lines = lab.log_path.read_text().splitlines()
    written = [json.loads(line) for line in lines if id in line and '"calls"' in line]
    found = [{*line.get("request_ids", [line.get("request_id")])} for line in written]
    return [{each for each in ids if each.startswith(id)} for ids in found]


@dataclass
class Run:
    """All that the calls of one run leave behind."""

    told: list[Any]
    metrics: Counter[str]
    ledger: Counter[tuple[str, ...]]
    statistics: list[Any]
    # The most calls that came to the router at once.
    at_once: int


async def run(door: Door, lab: Platform, folder: Path, together: bool) -> Run:
    """Makes the calls of a new cast, and gathers what they leave when that is complete."""
    cast = await asyncio.to_thread(Cast, lab, folder)
    before = await asyncio.to_thread(counted, cast)
    id = f"run-{cast.tag}"
    make = made_together if together else made_one_by_one
    answers = await make(door, cast, id)
    refused = sum(answer is not None and answer.status in (401, 403) for answer in answers)
    complete = unchanged(lambda: refusals(cast, id).total(), refused, 1.5)
    await soon(complete, 15, "each refusal is in the ledger")
    ledger = refusals(cast, id)
    assert ledger.total() == refused, "each once"
    metrics = await settled(cast, before, answers)
    metrics.subtract(before)
    return Run(
        told(cast, answers),
        without_late(cast, metrics),
        ledger,
        statistics(cast),
        max(len(ids) for ids in frames(lab, id)),
    )


async def test_a_group_of_mixed_members_ends_as_its_calls_one_by_one(
    door: Door, lab: Platform, tmp_path: Path
) -> None:
    alone = await run(door, lab, tmp_path / "alone", together=False)
    group = await run(door, lab, tmp_path / "group", together=True)

    assert group.at_once >= 4, "many calls came to the router in one frame"
    assert alone.at_once == 1
    assert group.told == alone.told
    assert group.ledger == alone.ledger
    assert group.statistics == alone.statistics
    assert group.metrics == alone.metrics


@pytest_asyncio.fixture(params=["rest", "grpc"], loop_scope="session")
async def opened_door(request: pytest.FixtureRequest, platform: Platform) -> AsyncIterator[Door]:
    """Each door of the platform with two runtimes."""
    async with door_of(platform, request.param) as opened:
        yield opened


async def test_a_runtime_that_dies_with_groups_in_hand_costs_no_call_its_answer(
    platform: Platform, slow_model: str, opened_door: Door
) -> None:
    """Each of two rounds has values of its own, so that an answer that came twice would be taken
    for that of a later call.
    """
    await opened_door.infer(slow_model, [[0.0]])
    serving = serving_runtime(platform, slow_model)
    counts = [1 + number % 2 for number in range(CALLS)]

    async def round_of(first: float) -> list[Answer]:
        asked = [
            [[first + 2 * at + each] for each in range(rows)] for at, rows in enumerate(counts)
        ]
        calls = [opened_door.infer(slow_model, rows, deadline=25.0) for rows in asked]
        answers = await asyncio.gather(*calls)
        assert [answer.status for answer in answers] == [200] * CALLS, answers
        for rows, answer in zip(asked, answers, strict=True):
            assert answer.values == [2 * value for (value,) in rows]
        return answers

    # It stands still until it dies, so that it cannot end its work before.
    os.kill(platform.pids()[serving], signal.SIGSTOP)
    dying = asyncio.create_task(round_of(1000.0))
    await soon(
        lambda: platform.metric("stellwerk_in_flight", process="router") >= 2,
        10,
        "groups are under way",
    )
    killed = platform.kill(serving)
    await dying
    await round_of(9000.0)

    await soon(lambda: platform.pids().get(serving) not in (killed, None), 10, "it is back")
