"""Runs streams through the servers, many at a time on one event loop, and gathers differences."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import uvloop

from services.api_gateway.http.heads import KnownHeads
from soak.http_streams.compare import Difference, with_itself, with_other
from soak.http_streams.servers import H11, Own, Uvicorn
from soak.http_streams.streams import Stream, stream_of

# Streams that share an event loop's turns: a turn costs the same for one and for many.
_BATCH = 200
# Streams that one process takes at a time, and whose report is kept when a run is cut short.
_CHUNK = 2000
_ROOT = Path(__file__).resolve().parents[2]
# Code on which a report depends.
_SOURCES = ("services/api_gateway/http", "soak/http_streams")
# Turns of the event loop within which a request is served: a task begins, reads and answers.
_TURNS = 4
# Turns within which everything that waits is served.
_LAST_TURNS = 400


@dataclass
class Report:
    """What was found: how often each rule explained a difference, and what none explains."""

    streams: int = 0
    requests: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    # Stream numbers and texts.
    unexplained: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Adds another report to this one."""
        self.streams += other.streams
        self.requests += other.requests
        self.explained += other.explained
        self.unexplained += other.unexplained


def run(numbers: Iterable[int]) -> Report:
    """Runs the streams of these numbers and returns what was found."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run([*numbers]))


def run_all(
    count: int, progress: Callable[[int], None], kept: Path | None = None, processes: int = 0
) -> Report:
    """Runs the first `count` streams in several processes, by default one for each core.

    Calls `progress` with the number of streams done. With `kept`, a run that was cut short goes on
    where it ended, unless the code has changed since.
    """
    done = _load(kept)
    total = Report()
    for found in done.values():
        total.add(found)
    starts = [start for start in range(0, count, _CHUNK) if start not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=context) as pool:
        chunks = {
            pool.submit(run, range(start, min(start + _CHUNK, count))): start for start in starts
        }
        for chunk in as_completed(chunks):
            done[chunks[chunk]] = chunk.result()
            total.add(chunk.result())
            progress(total.streams)
            _save(kept, done)
    return total


def _load(kept: Path | None) -> dict[int, Report]:
    if kept is None or not kept.is_file():
        return {}
    data = json.loads(kept.read_text())
    if data["code"] != _code():
        return {}
    return {
        int(start): Report(
            found["streams"],
            found["requests"],
            Counter(found["explained"]),
            [tuple(one) for one in found["unexplained"]],
        )
        for start, found in data["done"].items()
    }


def _save(kept: Path | None, done: dict[int, Report]) -> None:
    if kept is not None:
        reports = {
            start: {**vars(found), "explained": dict(found.explained)}
            for start, found in done.items()
        }
        kept.write_text(json.dumps({"code": _code(), "done": reports}))


def _code() -> str:
    files = sorted(file for folder in _SOURCES for file in (_ROOT / folder).glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


async def _run(numbers: Sequence[int]) -> Report:
    report = Report()
    # Shared by all connections, as in a gateway: hostile heads meet those of others.
    heads = KnownHeads()
    for at in range(0, len(numbers), _BATCH):
        await _batch([stream_of(number) for number in numbers[at : at + _BATCH]], heads, report)
    return report


@dataclass(slots=True)
class _Trial:
    """A stream and its servers: the gateway's, warm with the fast way and cold in one read."""

    stream: Stream
    warm: Own
    cold: Own
    uvicorn: Uvicorn
    h11: H11


async def _batch(streams: list[Stream], heads: KnownHeads, report: Report) -> None:
    trials = [
        _Trial(stream, Own(heads, fast=True), Own(KnownHeads(), fast=False), Uvicorn(), H11())
        for stream in streams
    ]
    for trial in trials:
        trial.cold.feed(trial.stream.data)
    for at in range(max(len(stream.reads) for stream in streams)):
        for trial in trials:
            if at < len(trial.stream.reads):
                data = trial.stream.reads[at]
                trial.warm.feed(data)
                trial.uvicorn.feed(data)
                trial.h11.feed(data)
        await _turns(trials, _TURNS)
    for trial in trials:
        trial.warm.look()
    await _turns(trials, 40)
    for trial in trials:
        _judge(trial, report)
    await _turns([], _TURNS)


async def _turns(trials: list[_Trial], count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
    for _ in range(_LAST_TURNS):
        behind = [own for trial in trials for own in (trial.warm, trial.cold) if own.is_behind]
        if not behind:
            return
        for own in behind:
            own.catch_up()
        await asyncio.sleep(0)


def _judge(trial: _Trial, report: Report) -> None:
    warm, cold = trial.warm.outcome(), trial.cold.outcome()
    uvicorn, h11 = trial.uvicorn.outcome(), trial.h11.outcome()
    differences: list[Difference] = [
        *with_itself("in pieces, against one read", warm, cold),
        *with_other(trial.stream, cold, uvicorn, "uvicorn"),
        *with_other(trial.stream, cold, h11, "h11"),
    ]
    report.streams += 1
    report.requests += len(cold.seen)
    for difference in differences:
        if difference.rule:
            report.explained[difference.rule] += 1
        else:
            report.unexplained.append((trial.stream.number, difference.text))
