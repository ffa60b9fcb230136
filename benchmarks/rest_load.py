"""Load over HTTP/1.1 with wrk: a closed loop, so for peak throughput and for one lone caller, not
for overload.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.measurement import Measurement, RestCall, System, WrongAnswer
from benchmarks.processes import CpuClock, run_generator
from benchmarks.ratios import SAMPLES_FOR_P99

SCRIPT = Path(__file__).parent / "post.lua"


def check(name: str, call: RestCall) -> None:
    """Raises WrongAnswer unless one call is answered with 200 and the right content."""
    answer = httpx.post(call.url, content=call.body, headers=dict(call.headers), timeout=60)
    if answer.status_code != 200 or not call.right(answer.content):
        raise WrongAnswer(f"{name} answered {answer.status_code}: {answer.text[:500]}")


def measure(system: System, call: RestCall, connections: int, seconds: float) -> Measurement:
    """Repeats the call on this many connections; what is not 2xx counts as an error and not as a
    request.
    """
    with tempfile.TemporaryDirectory() as directory:
        body, headers = Path(directory) / "body", Path(directory) / "headers"
        body.write_bytes(call.body)
        headers.write_text("".join(f"{name}: {value}\n" for name, value in call.headers.items()))
        return run_wrk(system, call.url, SCRIPT, (body, headers), connections, seconds)


def run_wrk(
    system: System,
    url: str,
    script: Path,
    files: Sequence[Path],
    connections: int,
    seconds: float,
) -> Measurement:
    """Runs wrk with a script that reads `files` and reports by `result.lua`; returns what it
    measured.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "30s", "-s", str(script), url, "--", *map(str, files)]
    clock = CpuClock(system.parts)
    output, own = run_generator(command)
    return parse(system.name, output, clock.spent(), own)


def parse(name: str, output: str, cpu: Mapping[str, float], own: float = 0.0) -> Measurement:
    """Returns what `result.lua` wrote as a measurement; `own` is wrk's own CPU time in seconds."""
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    errors = result["status"] + result["socket"]
    answered = result["requests"] - result["status"]
    if answered <= 0:
        raise WrongAnswer(
            f"{name} answered none of {result['requests']} requests well, {errors} failed"
        )
    seconds = result["microseconds"] / 1e6
    return Measurement(
        system=name,
        requests=answered,
        errors=errors,
        seconds=seconds,
        per_second=answered / seconds,
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000 if answered >= SAMPLES_FOR_P99 else None,
        cpu=1000 * sum(cpu.values()) / answered,
        cpu_parts={part: 1000 * spent / answered for part, spent in cpu.items()},
        generator=own / seconds,
    )
