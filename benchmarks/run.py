"""One run: starts the systems that the chosen figures need, measures each figure, and gathers the
report.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from benchmarks import earlier, facts, figures, grpc_load, model_loads, rest_load, scale
from benchmarks.echo import EchoServer
from benchmarks.figures import Figure, Plan, Progress, Result
from benchmarks.measurement import GrpcCall, RestCall, System, WrongAnswer
from benchmarks.memory import start_of
from benchmarks.mixed import load as mixed
from benchmarks.ours import HERE, Installation, Named, Stellwerk, flower_calls
from benchmarks.peers import MLServer
from benchmarks.processes import NotReady
from benchmarks.triton import Triton
from benchmarks.work import iris_model, is_mirrored, mirror_message, mirror_model
from stellwerk.wire.errors import ServiceError

# B1 and B3 load with 64 at a time; B2, B17 and B18 with 256; B4 and B5 with one.
MOST, MANY, ONE = 256, 64, 1
MODEL, MIRROR = "iris", "mirror"
# A figure that fails in one of these ways is reported as not measured; the others go on.
FAILURES = (
    WrongAnswer,
    NotReady,
    subprocess.CalledProcessError,
    ServiceError,
    httpx.HTTPError,
    OSError,
)

S = TypeVar("S", bound=System)


class Systems:
    """The systems under test, each started when first needed and stopped at the end."""

    def __init__(self, broker: str, baseline: str, stack: ExitStack, progress: Progress) -> None:
        """`baseline` is the commit whose platform B18 divides by."""
        self._broker = broker
        self.baseline = baseline
        self._stack = stack
        self._progress = progress
        self._running: dict[str, System] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.starts: dict[str, dict[str, Any]] = {}
        self.ours = self.peer(Stellwerk, self.another)
        self.body, self.message = flower_calls(MODEL, self.ours.store(iris_model(), MODEL))

    def peer(self, kind: type[S], start: Callable[[], S] | None = None) -> S:
        """The one system of this class; `start` makes it if it takes arguments."""
        name = kind.__name__
        if name not in self._running:
            self._progress(f"starting {name}")
            system = (start or kind)()
            self._stack.callback(system.stop)
            self.starts[system.name] = asdict(start_of(system))
            self.versions[system.name] = dict(system.versions)
            self._running[name] = system
        found = self._running[name]
        assert isinstance(found, kind)
        return found

    def another(self, log_level: str = "warning", installation: Installation = HERE) -> Stellwerk:
        """Starts one more platform, for the caller to stop."""
        return Stellwerk(self._broker, log_level, installation=installation)


def _rest(
    figure: Figure,
    connections: int,
    systems: Systems,
    peer: System,
    other: RestCall,
    plan: Plan,
    progress: Progress,
) -> Result:
    ours = systems.ours
    mine = ours.rest(MODEL, systems.body)
    rest_load.check(ours.name, mine)
    rest_load.check(peer.name, other)
    return figures.measure(
        figure,
        plan,
        lambda seconds: rest_load.measure(ours, mine, connections, seconds),
        lambda seconds: rest_load.measure(peer, other, connections, seconds),
        progress,
    )


def _against_mlserver(
    figure: Figure, connections: int, systems: Systems, plan: Plan, progress: Progress
) -> list[dict[str, Any]]:
    peer = systems.peer(MLServer)
    return [
        _rest(figure, connections, systems, peer, peer.rest(systems.body), plan, progress).as_json()
    ]


def _against_triton(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    peer = systems.peer(Triton)
    result = _rest(figures.B2, MOST, systems, peer, peer.rest(), plan, progress)
    return [result.as_json(), figures.gateway_cpu(result).as_json()]


def _against_echo(
    figure: Figure,
    in_flight: int,
    connections: int,
    mine: GrpcCall,
    systems: Systems,
    plan: Plan,
    progress: Progress,
) -> dict[str, Any]:
    ours, peer = systems.ours, systems.peer(EchoServer)
    other = peer.call(mine.request)
    return figures.measure(
        figure,
        plan,
        lambda seconds: grpc_load.measure(ours, mine, in_flight, seconds, connections),
        lambda seconds: grpc_load.measure(peer, other, in_flight, seconds, connections),
        progress,
    ).as_json()


def _small_messages(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    call = systems.ours.grpc(systems.message)
    return [
        _against_echo(figures.B3A, MANY, 1, call, systems, plan, progress),
        _against_echo(figures.B3B, MANY, MANY, call, systems, plan, progress),
    ]


def _large_messages(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    tensor = systems.ours.store(mirror_model(), MIRROR)
    call = replace(systems.ours.grpc(mirror_message(MIRROR, tensor.name)), right=is_mirrored)
    return [_against_echo(figures.B5, ONE, 1, call, systems, plan, progress)]


def _log_levels(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    """Measures a second platform, which writes a line for each request, beside the first."""
    progress("starting Stellwerk at log level info")
    talkative = systems.another("info")
    try:
        talkative.store(iris_model(), MODEL)

        def load(platform: Stellwerk, level: str) -> figures.Load:
            system, call = Named(f"log level {level}", platform), platform.rest(MODEL, systems.body)
            rest_load.check(system.name, call)
            return lambda seconds: rest_load.measure(system, call, MOST, seconds)

        loads = load(talkative, "info"), load(systems.ours, "warning")
        return [figures.measure(figures.B17, plan, *loads, progress).as_json()]
    finally:
        talkative.stop()


def _mixed(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    """Measures the platform beside itself as it was at an earlier commit."""
    place = earlier.installation(systems.baseline, progress)
    progress(f"starting Stellwerk at {systems.baseline}")
    before = systems.another(installation=place)
    try:
        today = Named("Stellwerk", systems.ours)
        former = Named(f"Stellwerk at {systems.baseline}", before)
        loads = mixed.prepare(today, MOST), mixed.prepare(former, MOST)
        figure = replace(figures.B18, title=figures.B18.title.format(former.name))
        return [figures.measure(figure, plan, *loads, progress).as_json()]
    finally:
        before.stop()


def _scale(systems: Systems, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    return [
        scale.models(systems.another, systems.ours, plan, progress).as_json(),
        scale.runtimes(systems.ours, plan, progress).as_json(),
    ]


Measured = Callable[[Systems, Plan, Progress], list[dict[str, Any]]]
FIGURES: dict[str, Measured] = {
    "B1": lambda systems, plan, progress: _against_mlserver(
        figures.B1, MANY, systems, plan, progress
    ),
    "B2": _against_triton,
    "B3": _small_messages,
    "B4": lambda systems, plan, progress: _against_mlserver(
        figures.B4, ONE, systems, plan, progress
    ),
    "B5": _large_messages,
    "B8": lambda systems, plan, progress: [
        model_loads.count(systems.ours, plan.predictions).as_json()
    ],
    "B9": _scale,
    "B17": _log_levels,
    "B18": _mixed,
}


def run(
    chosen: Sequence[str], plan: Plan, broker: str, baseline: str, progress: Progress
) -> dict[str, Any]:
    """Returns the report of a run.

    A figure that cannot be measured says why and does not keep the others from it.
    """
    commit, dirty = facts.commit()
    environment = facts.environment()
    measured: list[dict[str, Any]] = []
    with ExitStack() as stack:
        systems = Systems(broker, baseline, stack, progress)
        for name in chosen:
            progress(f"{name}: measuring")
            try:
                measured += FIGURES[name](systems, plan, progress)
            except FAILURES as problem:
                progress(f"{name}: {problem}")
                measured.append(
                    {"id": name, "reached": False, "failed": " ".join(str(problem).split())[:300]}
                )
        versions, starts = systems.versions, systems.starts
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "effort": f"{plan.pairs} pairs of {plan.seconds:g} s after {plan.warm_up:g} s of warm-up",
        "environment": environment,
        "systems": versions,
        "starts": starts,
        "figures": measured,
    }
