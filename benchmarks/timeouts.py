"""When a client that allows 200 ms hears of it, behind a model that is busy for a second and a half
at a time.

`python -m benchmarks timeouts`: the timeout travels with the request and the client itself waits
much longer, so what is measured is when the *server* says that time is up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.measurement import RestCall
from benchmarks.overload import Progress, Sleeper
from benchmarks.ratios import percentile
from benchmarks.slow_work import AT_ONCE, OurSleeper, TritonSleeper

TIMEOUT_SECONDS = 0.2
LIMIT_MS = 250
BUSY_SECONDS = 1.5
PROBES = 60
SPACING_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
# So many long calls at once: while some run, as many wait, so none of the short ones gets its turn
# in time.
LONG_CALLS = 3 * AT_ONCE


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer: what a client heard, and the milliseconds until then."""

    status: int
    milliseconds: float


def run(broker: str, progress: Progress) -> list[dict[str, Any]]:
    """One entry for each system; only one of them runs at a time."""
    found = []
    starts: list[Callable[[], Sleeper]] = [lambda: OurSleeper(broker), TritonSleeper]
    for start in starts:
        system = start()
        try:
            heard = measure(system)
        finally:
            system.stop()
        found.append({"system": system.name, "versions": dict(system.versions), **summary(heard)})
        progress(f"{system.name}: {found[-1]}")
    return found


def measure(system: Sleeper) -> list[Heard]:
    """Sends the probes, one every quarter of a second, while long calls keep the model busy."""
    ended = threading.Event()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with (
        httpx.Client(timeout=PATIENCE_SECONDS, limits=limits) as client,
        ThreadPoolExecutor(LONG_CALLS + PROBES) as pool,
    ):
        _ask(client, system.call(0.0, PATIENCE_SECONDS))

        def keep_busy() -> None:
            while not ended.is_set():
                if _ask(client, system.call(BUSY_SECONDS, PATIENCE_SECONDS)).status != 200:
                    ended.wait(SPACING_SECONDS)

        busy = [pool.submit(keep_busy) for _ in range(LONG_CALLS)]
        time.sleep(BUSY_SECONDS)
        probe = system.call(0.0, TIMEOUT_SECONDS)
        probes = []
        for _ in range(PROBES):
            probes.append(pool.submit(_ask, client, probe))
            time.sleep(SPACING_SECONDS)
        heard = [future.result() for future in probes]
        ended.set()
        for caller in busy:
            caller.result()
    return heard


def summary(heard: list[Heard]) -> dict[str, Any]:
    """When the clients heard, in ms, and what: by status."""
    times = [one.milliseconds for one in heard]
    return {
        "probes": len(heard),
        "statuses": dict(sorted(Counter(str(one.status) for one in heard).items())),
        "p50_ms": round(percentile(times, 0.5) or 0.0, 1),
        "p95_ms": round(percentile(times, 0.95) or 0.0, 1),
        "max_ms": round(max(times), 1),
        "limit_ms": LIMIT_MS,
        "met": max(times) <= LIMIT_MS,
    }


def _ask(client: httpx.Client, call: RestCall) -> Heard:
    begun = time.perf_counter()
    answer = client.post(call.url, content=call.body, headers=dict(call.headers))
    return Heard(answer.status_code, 1000 * (time.perf_counter() - begun))
