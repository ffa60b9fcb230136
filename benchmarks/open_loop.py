"""Load that does not wait: every request leaves when it should, whatever became of those before it.

Latency counts from the moment when the request should have left, so a server that stalls cannot
hide it by stalling its clients. As a program it reads its orders as JSON from standard input and
writes what became of each request.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args

import uvloop

from benchmarks.arrivals import Step, arrivals
from benchmarks.http_client import BadResponse, Pool, request_bytes
from benchmarks.measurement import RestCall

# What became of a request: the right answer in time or too late; refused because of load; ended by
# the server because its time was up; not answered when the client went; anything else.
Outcome = Literal["good", "late", "refused", "expired", "abandoned", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# A client waits a moment longer than its deadline, to see who ends the call.
GRACE_SECONDS = 0.25
SEED = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it should have left, in seconds from the start, its latency from then on in
    ms, its end.
    """

    at: float
    latency: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw. `start` is by time.monotonic; `cpu` is the share of one core that it
    took itself.
    """

    start: float
    samples: Sequence[Sample]
    cpu: float
    # How late a request left, in ms, 99th percentile: the generator's own weakness.
    lateness: float
    problem: str


def run(call: RestCall, steps: Sequence[Step], deadline: float) -> Load:
    """Sends the call by the steps; blocks until all have ended. Raises CalledProcessError."""
    return _generate(call, deadline, {"steps": [[step.rate, step.seconds] for step in steps]})


def run_closed(call: RestCall, callers: int, seconds: float, deadline: float) -> Load:
    """So many callers, each with one request at a time: what finds a system's capacity."""
    return _generate(call, deadline, {"callers": callers, "seconds": seconds})


def _generate(call: RestCall, deadline: float, orders: dict[str, Any]) -> Load:
    orders |= {
        "url": call.url,
        "body": base64.b64encode(call.body).decode(),
        "headers": dict(call.headers),
        "deadline": deadline,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.open_loop"],
        input=json.dumps(orders),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    samples = [
        Sample(at, latency, OUTCOMES[outcome]) for at, latency, outcome in found.pop("samples")
    ]
    return Load(samples=samples, **found)


def outcome(status: int, body: bytes, seconds: float, deadline: float) -> Outcome:
    """Returns what an answer after `seconds` counts as: in time, late or failed."""
    if status == 200:
        return "good" if seconds <= deadline else "late"
    # Triton says 503 both for a full queue and for a request whose time in the queue is up.
    if status == 504 or (status == 503 and b"timeout" in body):
        return "expired"
    return "refused" if status in (429, 503) else "failed"


class Generator:
    """Sends one request again and again and writes down what becomes of it."""

    def __init__(self, orders: dict[str, Any]) -> None:
        host, port, self._request = request_bytes(
            orders["url"], base64.b64decode(orders["body"]), orders["headers"]
        )
        self._deadline = orders["deadline"]
        self._pool = Pool(host, port)
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.samples: list[tuple[float, float, int]] = []
        self.lateness: list[float] = []
        self.problem = ""

    async def follow(self, times: Iterator[float]) -> None:
        """One request at each of these times."""
        running = set()
        for at in times:
            delay = self._start + at - self._loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            self.lateness.append(1000 * (self._loop.time() - self._start - at))
            task = self._loop.create_task(self._ask(at))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def repeat(self, callers: int, seconds: float) -> None:
        """So many callers, one request at a time each."""

        async def caller() -> None:
            while (at := self._loop.time() - self._start) < seconds:
                await self._ask(at)

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def _ask(self, at: float) -> None:
        due = self._start + at
        try:
            async with asyncio.timeout_at(due + self._deadline + GRACE_SECONDS):
                status, body = await self._pool.ask(self._request)
        except TimeoutError:
            self._note(at, "abandoned")
        except BadResponse as problem:
            self.problem = self.problem or str(problem)
            self._note(at, "failed")
        else:
            end = outcome(status, body, self._loop.time() - due, self._deadline)
            if end == "failed":
                self.problem = self.problem or f"{status}: {body[:200]!r}"
            self._note(at, end)

    def _note(self, at: float, end: Outcome) -> None:
        self.samples.append(
            (at, 1000 * (self._loop.time() - self._start - at), OUTCOMES.index(end))
        )

    def close(self) -> None:
        """Closes its connections."""
        self._pool.close()


async def _main(orders: dict[str, Any]) -> dict[str, Any]:
    started, spent = time.monotonic(), time.process_time()
    generator = Generator(orders)
    gc.freeze()
    if "steps" in orders:
        await generator.follow(arrivals([Step(*step) for step in orders["steps"]], Random(SEED)))
    else:
        await generator.repeat(orders["callers"], orders["seconds"])
    generator.close()
    late = sorted(generator.lateness) or [0.0]
    return {
        "start": started,
        "samples": sorted(generator.samples),
        "cpu": (time.process_time() - spent) / (time.monotonic() - started),
        "lateness": late[int(0.99 * (len(late) - 1))],
        "problem": generator.problem,
    }


if __name__ == "__main__":
    json.dump(uvloop.run(_main(json.load(sys.stdin))), sys.stdout)
