"""Measures the CPU time of a REST request by process and by room, at 1, 64 and 256 connections.

Two things are measured apart, because tracing slows a process down: how much CPU time each process
takes, from /proc and undisturbed, and how a service's share of it splits, from samples of its
stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from threading import Event
from typing import Any, TypeVar

from benchmarks import rest_load
from benchmarks.figures import Progress
from benchmarks.measurement import Measurement, RestCall, WrongAnswer
from benchmarks.ours import Stellwerk, flower_calls
from benchmarks.processes import CpuClock, thread_user_seconds
from benchmarks.profiling import sampling
from benchmarks.profiling.stacks import samples_by_thread, split
from benchmarks.venvs import PROFILER
from benchmarks.work import iris_model

K = TypeVar("K")
LOADS = (1, 64, 256)
# The services that a request passes: their names as processes and their folders.
SERVICES = {"api_gateway": "api_gateway", "router": "router", "runtime": "runtime"}
MODEL = "iris"
_MICROSECONDS = 1e6
_PIECE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds of undisturbed measurements, their seconds, and the seconds of samples per service.

    A service with less than `enough` samples is sampled again, four times in all.
    """

    rounds: int
    seconds: float
    sampled: float
    enough: int


FULL = Effort(rounds=5, seconds=5, sampled=12, enough=500)
QUICK = Effort(rounds=1, seconds=2, sampled=4, enough=50)
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU µs per request of each process in one measurement, `kernel` being a part of `whole`.

    `threads` holds the user time of the threads of each service.
    """

    measured: Measurement
    whole: Mapping[str, float]
    kernel: Mapping[str, float]
    threads: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, slots=True)
class Level:
    """The profile at one number of connections. Times are CPU µs per answered request.

    `kernel` is the part of each process that its system calls took. `parts` splits the rest of each
    service by room and library, `samples` is the number of stacks that this rests on.
    """

    connections: int
    per_second: float
    p50_ms: float
    generator: float
    processes: Mapping[str, float]
    kernel: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, int]


def run(effort: Effort, broker: str, progress: Progress) -> list[dict[str, Any]]:
    """Returns a level for each number of connections. Raises WrongAnswer if a request failed."""
    PROFILER.ensure()
    progress("starting Stellwerk")
    platform = Stellwerk(broker)
    try:
        body, _ = flower_calls(MODEL, platform.store(iris_model(), MODEL))
        rest_load.check(platform.name, platform.rest(MODEL, body))
        for connections in LOADS:
            _load(platform, body, connections)(effort.seconds)
        rounds = [_round(platform, body, effort, number, progress) for number in _count(effort)]
        return [
            asdict(
                _level(platform, body, connections, [one[at] for one in rounds], effort, progress)
            )
            for at, connections in enumerate(LOADS)
        ]
    finally:
        platform.stop()


def _count(effort: Effort) -> range:
    return range(1, effort.rounds + 1)


def _load(platform: Stellwerk, body: bytes, connections: int) -> Callable[[float], Measurement]:
    # The token in the header is renewed while the platform runs.
    call: RestCall = platform.rest(MODEL, body)
    return lambda seconds: rest_load.measure(platform, call, connections, seconds)


def _round(
    platform: Stellwerk, body: bytes, effort: Effort, number: int, progress: Progress
) -> list[Spent]:
    """Measures each number of connections once."""
    spent = []
    for connections in LOADS:
        clock, before = CpuClock(platform.parts, kernel=True), _threads(platform)
        measured = _load(platform, body, connections)(effort.seconds)
        kernel, after = clock.spent(), _threads(platform)
        if measured.errors:
            raise WrongAnswer(f"{measured.errors} requests failed on {connections} connections")
        # CPU-seconds per 1,000 requests are milliseconds per request.
        whole = {name: 1000 * value for name, value in measured.cpu_parts.items()}
        each = _MICROSECONDS / measured.requests
        share = {name: value * each for name, value in kernel.items()}
        threads = {
            name: {tid: each * (was - before[name].get(tid, 0.0)) for tid, was in now.items()}
            for name, now in after.items()
        }
        spent.append(Spent(measured, whole, share, threads))
        progress(
            f"round {number}/{effort.rounds}, {connections} connections:"
            f" {measured.per_second:,.0f} req/s, {sum(whole.values()):,.0f} µs per request"
        )
    return spent


def _threads(platform: Stellwerk) -> dict[str, dict[int, float]]:
    return {name: thread_user_seconds(platform.ready["pids"][name]) for name in SERVICES}


def _level(
    platform: Stellwerk,
    body: bytes,
    connections: int,
    spent: Sequence[Spent],
    effort: Effort,
    progress: Progress,
) -> Level:
    """Samples the services one after the other, so that one tracer runs at a time."""
    whole, kernel = _medians([one.whole for one in spent]), _medians([one.kernel for one in spent])
    parts, samples = {}, {}
    for name, folder in SERVICES.items():
        progress(f"{connections} connections: sampling {name}")
        load, counts, stacks = _load(platform, body, connections), {}, ""
        for _ in range(_ATTEMPTS):
            stacks += _sample(platform, name, load, effort.sampled)
            counts = samples_by_thread(stacks, folder)
            samples[name] = sum(count.total() for count in counts.values())
            if samples[name] >= effort.enough:
                break
        user = max(0.0, whole[name] - kernel[name])
        parts[name] = split(user, _medians([one.threads[name] for one in spent]), counts)
    measured = [one.measured for one in spent]
    return Level(
        connections=connections,
        per_second=median(one.per_second for one in measured),
        p50_ms=median(one.p50 for one in measured),
        generator=median(one.generator / one.per_second * _MICROSECONDS for one in measured),
        processes=whole,
        kernel=kernel,
        parts=parts,
        samples=samples,
    )


def _sample(
    platform: Stellwerk, name: str, load: Callable[[float], Measurement], seconds: float
) -> str:
    """Returns the stacks of a service under a load that lasts until the tracer has ended.

    How long the tracer takes to read the symbols of a process is not known beforehand, and the
    process stands still meanwhile. So the load is sent in pieces, of which some answer nothing.
    """
    ended = Event()

    def keep_loading() -> int:
        answered = 0
        while not ended.is_set():
            with suppress(WrongAnswer):
                answered += load(_PIECE_SECONDS).requests
        return answered

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(keep_loading)
        try:
            stacks = sampling.record(platform.ready["pids"][name], seconds)
        finally:
            ended.set()
        if not under_way.result():
            raise WrongAnswer(f"{name} answered nothing while it was traced")
    return stacks


def _medians(values: Sequence[Mapping[K, float]]) -> dict[K, float]:
    """Returns the median for each key of the last mapping; a thread that was not there took 0."""
    return {key: median(one.get(key, 0.0) for one in values) for key in values[-1]}
