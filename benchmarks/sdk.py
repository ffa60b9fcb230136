"""`sdk`: what a burst of predictions of the asynchronous SDK costs over HTTP, against gRPC.

Both clients call the same platform in turns, so that a change of the machine's load meets both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ours import Stellwerk
from benchmarks.work import FLOWER, iris_model
from stellwerk.client import AsyncClient, connect_async

# Predictions of one burst, all at once.
BURST = 500
MODEL = "iris"


@dataclass(frozen=True, slots=True)
class Burst:
    """Seconds of one burst: on the clock, and of this process's processor time."""

    wall: float
    cpu: float


def run(broker: str, rounds: int, progress: Callable[[str], None]) -> str:
    """Measures `rounds` pairs of bursts; returns a table with medians and their ratio."""
    ours = Stellwerk(broker)
    try:
        ours.store(iris_model(), MODEL)
        token = Path(ours.ready["token_file"]).read_text().strip()
        grpc = f"grpc://{ours.ready['grpc'].removeprefix('grpc://')}"
        urls = {"HTTP": ours.ready["http"], "gRPC": grpc}
        measured = asyncio.run(_measure(urls, token, rounds, progress))
    finally:
        ours.stop()
    return _table(measured)


async def _measure(
    urls: dict[str, str], token: str, rounds: int, progress: Callable[[str], None]
) -> dict[str, list[Burst]]:
    clients = {name: connect_async(url, token) for name, url in urls.items()}
    measured: dict[str, list[Burst]] = {name: [] for name in urls}
    try:
        for client in clients.values():
            await _burst(client)  # connections, the signature, and a loaded model
        for number in range(rounds):
            for name, client in clients.items():
                measured[name].append(await _burst(client))
            progress(f"sdk: round {number + 1} of {rounds}")
    finally:
        for client in clients.values():
            await client.close()
    return measured


async def _burst(client: AsyncClient) -> Burst:
    model = client.runtime.model(MODEL)
    wall = time.perf_counter()
    cpu = time.process_time()
    answers = await asyncio.gather(*(model.predict([FLOWER]) for _ in range(BURST)))
    burst = Burst(time.perf_counter() - wall, time.process_time() - cpu)
    assert all(answer.tolist() == [0] for answer in answers), "a flower was taken for another"
    return burst


def _table(measured: dict[str, list[Burst]]) -> str:
    rows = [f"{BURST} predictions at once by one asynchronous client"]
    for what in ("wall", "cpu"):
        http, grpc = (
            statistics.median(getattr(burst, what) for burst in measured[name])
            for name in ("HTTP", "gRPC")
        )
        rows.append(f"{what:5} HTTP {http:.3f} s  gRPC {grpc:.3f} s  HTTP / gRPC {http / grpc:.2f}")
    return "\n".join(rows)
