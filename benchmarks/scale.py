"""B9: whether a request costs the same with many registered models, and with many attached
runtimes.

What is compared is the CPU time of a request over all processes of a platform. Registering a
thousand models takes longer than a measurement, so two platforms run side by side, alike but for
the models, and are measured in turns. Runtimes attach and leave in a second, so they come and go
between the two halves of a pair, on one platform.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnx

from benchmarks import figures, rest_load
from benchmarks.figures import Plan, Progress, Result
from benchmarks.measurement import Measurement, RestCall
from benchmarks.ours import Named, Stellwerk, flower_calls
from benchmarks.simulated_fleet import SimulatedFleet
from benchmarks.work import iris_model, mirror_model

CONNECTIONS = 64
AT_ONCE = 8
MODEL = "iris"


def register(platform: Stellwerk, count: int) -> None:
    """Stores `count` small models, each under its own name; none is ever loaded."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        path = Path(folder) / "mirror.onnx"
        onnx.save(mirror_model(), str(path))
        for _ in pool.map(
            lambda number: platform.client.models.put(path, f"registered-{number}"), range(count)
        ):
            pass


def models(
    start: Callable[[], Stellwerk], few: Stellwerk, plan: Plan, progress: Progress
) -> Result:
    """`few` has the model that is asked for and hardly another; `start` gives a second platform
    like it.
    """
    many = start()
    try:
        many.store(iris_model(), MODEL)
        progress(f"B9a: registering {plan.models:,} models")
        register(many, plan.models - 1)
        return figures.measure(
            replace(figures.B9A, title=figures.B9A.title.format(plan.models)),
            plan,
            _load(Named(f"{plan.models:,} models", many), many),
            _load(Named("few models", few), few),
            progress,
        )
    finally:
        many.stop()


def runtimes(platform: Stellwerk, plan: Plan, progress: Progress) -> Result:
    """One real runtime does all the work, beside the simulated ones and without them."""
    environment = platform.environment("runtime")
    alone = _load(Named("1 runtime", platform), platform)
    crowded = _load(Named(f"{1 + plan.runtimes} runtimes", platform), platform)

    def among_many(seconds: float) -> Measurement:
        with SimulatedFleet(environment, plan.runtimes):
            return crowded(seconds)

    figure = replace(figures.B9B, title=figures.B9B.title.format(1 + plan.runtimes))
    return figures.measure(figure, plan, among_many, alone, progress)


def _load(system: Named, platform: Stellwerk) -> figures.Load:
    body, _ = flower_calls(MODEL, platform.input_of(MODEL))
    call: RestCall = platform.rest(MODEL, body)
    rest_load.check(system.name, call)
    return lambda seconds: rest_load.measure(system, call, CONNECTIONS, seconds)
