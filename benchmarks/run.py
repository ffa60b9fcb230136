"""One run: starts the systems that the chosen figures need, measures each figure, and gathers the report."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, TypeVar

from benchmarks import facts, figures, grpc_load, model_loads, rest_load
from benchmarks.echo import EchoServer
from benchmarks.figures import Plan, Progress, Result
from benchmarks.measurement import System, WrongAnswer
from benchmarks.ours import Stellwerk, flower_calls
from benchmarks.peers import MLServer
from benchmarks.processes import NotReady
from benchmarks.work import iris_model

# B1 and B3 load with 64 at a time, B4 with one.
MANY, ONE = 64, 1
MODEL = "iris"

S = TypeVar("S", bound=System)


class Systems:
    """The systems under test, each started when first needed and stopped at the end."""

    def __init__(self, broker: str, stack: ExitStack, progress: Progress) -> None:
        self._stack = stack
        self._progress = progress
        self._mlserver: MLServer | None = None
        self._echo: EchoServer | None = None
        self.versions: dict[str, dict[str, str]] = {}
        self.ours = self._start("Stellwerk", lambda: Stellwerk(broker))
        tensor = self.ours.store(iris_model(), MODEL)
        self.body, self.message = flower_calls(MODEL, tensor)

    def mlserver(self) -> MLServer:
        """The REST peer."""
        self._mlserver = self._mlserver or self._start(MLServer.name, MLServer)
        return self._mlserver

    def echo(self) -> EchoServer:
        """The gRPC floor."""
        self._echo = self._echo or self._start(EchoServer.name, EchoServer)
        return self._echo

    def _start(self, name: str, start: Callable[[], S]) -> S:
        self._progress(f"starting {name}")
        system = start()
        self._stack.callback(system.stop)
        self.versions[name] = dict(system.versions)
        return system


def _rest(figure: figures.Figure, connections: int, systems: Systems, plan: Plan, progress: Progress) -> Result:
    ours, peer = systems.ours, systems.mlserver()
    mine, other = ours.rest(MODEL, systems.body), peer.rest(systems.body)
    rest_load.check(ours.name, mine)
    rest_load.check(peer.name, other)
    return figures.measure(
        figure,
        plan,
        lambda seconds: rest_load.measure(ours, mine, connections, seconds),
        lambda seconds: rest_load.measure(peer, other, connections, seconds),
        progress,
    )


def _grpc(systems: Systems, plan: Plan, progress: Progress) -> Result:
    ours, peer = systems.ours, systems.echo()
    mine, other = ours.grpc(systems.message), peer.call(systems.message)
    return figures.measure(
        figures.B3,
        plan,
        lambda seconds: grpc_load.measure(ours, mine, MANY, seconds),
        lambda seconds: grpc_load.measure(peer, other, MANY, seconds),
        progress,
    )


Measured = Callable[[Systems, Plan, Progress], dict[str, Any]]
FIGURES: dict[str, Measured] = {
    "B1": lambda systems, plan, progress: _rest(figures.B1, MANY, systems, plan, progress).as_json(),
    "B3": lambda systems, plan, progress: _grpc(systems, plan, progress).as_json(),
    "B4": lambda systems, plan, progress: _rest(figures.B4, ONE, systems, plan, progress).as_json(),
    "B8": lambda systems, plan, progress: model_loads.count(systems.ours, plan.predictions).as_json(),
}


def run(chosen: Sequence[str], plan: Plan, broker: str, progress: Progress) -> dict[str, Any]:
    """The report of a run. A figure that cannot be measured says why and does not keep the others from it."""
    commit, dirty = facts.commit()
    environment = facts.environment()
    measured = []
    with ExitStack() as stack:
        systems = Systems(broker, stack, progress)
        for name in chosen:
            progress(f"{name}: measuring")
            try:
                measured.append(FIGURES[name](systems, plan, progress))
            except (WrongAnswer, NotReady, subprocess.CalledProcessError) as problem:
                progress(f"{name}: {problem}")
                measured.append({"id": name, "reached": False, "failed": " ".join(str(problem).split())[:300]})
        versions = systems.versions
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "effort": f"{plan.pairs} pairs of {plan.seconds:g} s after {plan.warm_up:g} s of warm-up",
        "environment": environment,
        "systems": versions,
        "figures": measured,
    }
