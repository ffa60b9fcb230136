"""Load over gRPC from a process of its own: a closed loop of ModelInfer calls, the same client for every system.

As a program it reads its orders as JSON from standard input and writes its findings as JSON to standard output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import grpc
import uvloop

from benchmarks.measurement import GrpcCall, Measurement, System, WrongAnswer
from benchmarks.processes import CpuClock
from benchmarks.ratios import SAMPLES_FOR_P99, percentile
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc

# A call that takes longer than this is an error, not a slow answer.
DEADLINE_SECONDS = 30


def measure(system: System, call: GrpcCall, in_flight: int, seconds: float) -> Measurement:
    """Keeps this many calls in flight; raises WrongAnswer if none of them is answered well."""
    orders = {
        "address": call.address,
        "request": base64.b64encode(call.request).decode(),
        "metadata": dict(call.metadata),
        "in_flight": in_flight,
        "seconds": seconds,
    }
    clock = CpuClock(system.parts)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grpc_load"],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
    )
    spent = clock.spent()
    if done.returncode != 0:
        raise WrongAnswer(f"{system.name}: the load generator failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["latencies"]:
        raise WrongAnswer(f"{system.name} answered no call well: {found['problem']}")
    return _measurement(system.name, found, spent)


def _measurement(name: str, found: dict[str, Any], cpu: Mapping[str, float]) -> Measurement:
    latencies = found["latencies"]
    middle = percentile(latencies, 0.5)
    assert middle is not None
    return Measurement(
        system=name,
        requests=len(latencies),
        errors=found["errors"],
        seconds=found["seconds"],
        per_second=len(latencies) / found["seconds"],
        p50=middle,
        p99=percentile(latencies, 0.99, needed=SAMPLES_FOR_P99),
        cpu=1000 * sum(cpu.values()) / len(latencies),
        cpu_parts={part: 1000 * spent / len(latencies) for part, spent in cpu.items()},
    )


async def _load(orders: dict[str, Any]) -> dict[str, Any]:
    request = pb.ModelInferRequest.FromString(base64.b64decode(orders["request"]))
    metadata = tuple(orders["metadata"].items())
    latencies: list[float] = []
    failures: list[str] = []
    async with grpc.aio.insecure_channel(orders["address"]) as channel:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(request, metadata=metadata, timeout=DEADLINE_SECONDS)
        start = time.perf_counter()
        end = start + orders["seconds"]

        async def caller() -> None:
            while (begun := time.perf_counter()) < end:
                try:
                    answer = await stub.ModelInfer(request, metadata=metadata, timeout=DEADLINE_SECONDS)
                except grpc.aio.AioRpcError as error:
                    failures.append(f"{error.code().name}: {error.details()}")
                    continue
                if answer.outputs:
                    latencies.append(1000 * (time.perf_counter() - begun))
                else:
                    failures.append("an answer without outputs")

        await asyncio.gather(*(caller() for _ in range(orders["in_flight"])))
        seconds = time.perf_counter() - start
    return {
        "latencies": latencies,
        "errors": len(failures),
        "problem": failures[0] if failures else "",
        "seconds": seconds,
    }


if __name__ == "__main__":
    json.dump(uvloop.run(_load(json.load(sys.stdin))), sys.stdout)
