"""`python -m benchmarks.runtime_path`: what a request costs inside a runtime, from its delivery to
its reply.

One process holds everything: the embedded broker, a real scikit-learn model stored as skops, and a
router's end that sends prepared envelopes and counts replies. CPU time is the process's own, of all
its threads, so it includes the model and the little that the other end does; it survives a busy
machine, latencies do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from services.chassis.broker.port import Delivery, Message
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker
from services.chassis.telemetry import Tracing
from services.runtime.batching.scheduler import Executor
from services.runtime.formats.port import FormatSettings
from services.runtime.intake.consumer import WorkConsumer
from services.runtime.metrics import RuntimeMetrics
from services.runtime.models.artifacts import ArtifactCache
from services.runtime.models.cache import ModelCache
from services.runtime.models.loader import ModelLoader
from services.runtime.replies.sender import ReplySender
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.tensors import from_numpy
from stellwerk.wire.topology import inference_queue, reply_queue, serving_key

_GIB = 1 << 30
_NAME = "buckets/default/models/digits/versions/1"
_REPLIES = reply_queue("router")
_CONTEXT = {
    "x-request-id": "5f2c9a6e0d1b4c8f9a7e3d2c1b0a9f8e",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "x-principal": "principals/benchmark",
}


@dataclass(frozen=True)
class Figure:
    """One row of the table: envelopes of so many items, so many envelopes on their way at a
    time.
    """

    items: int
    envelopes: int
    cpu_us_per_item: float
    items_per_second: float
    p50_ms: float


class Rig:
    """A runtime's inside between two ends of a broker."""

    def __init__(self, folder: Path, slots: int) -> None:
        hub = Hub()
        log = structlog.wrap_logger(
            None, wrapper_class=structlog.make_filtering_bound_logger("warning")
        )
        self.router, self.broker = HubBroker(hub), HubBroker(hub)
        self.metrics = RuntimeMetrics(CollectorRegistry())
        self.artifacts = ArtifactCache(folder / "cache", _GIB, self._download, fetched=lambda: None)
        self.executor = Executor(slots, max_batch_rows=256, batched=self.metrics.batched)
        self.loader = ModelLoader(
            FormatSettings(), allow_unsafe=False, log=log, loaded=self.executor.models_changed
        )
        self.cache = ModelCache(_GIB, self.artifacts, self.loader, self.metrics)
        self.consumer = WorkConsumer(
            name="runtimes/r1",
            broker=self.broker,
            cache=self.cache,
            executor=self.executor,
            replies=ReplySender(self.broker, max_message_bytes=1 << 26, log=log),
            metrics=self.metrics,
            tracing=Tracing("runtime", "r1", ""),
            log=log,
        )
        self.version, self.artifact = model(folder)
        self.queue = inference_queue(serving_key(_NAME, self.version.requires)).name
        self.unanswered = 0
        self.answered = asyncio.Event()

    async def start(self) -> None:
        """Everything is there, and the model has answered once."""
        await self.artifacts.start()
        await self.loader.start()
        await self.router.start()
        await self.broker.start()
        await self.router.consume(_REPLIES, self._count, prefetch=0)
        await self.consumer.open(serving_key(_NAME, self.version.requires), self.version)

    async def stop(self) -> None:
        """Lets everything go."""
        await self.executor.close()
        await self.cache.close()
        await self.broker.close()
        await self.router.close()

    async def round(self, body: bytes, items: int, envelopes: int) -> None:
        """Sends so many envelopes and waits for all their replies."""
        self.unanswered = items * envelopes
        self.answered.clear()
        for _ in range(envelopes):
            await self.router.publish(self.queue, Message(body, reply_to=_REPLIES.name))
        await self.answered.wait()

    def _count(self, delivery: Delivery) -> None:
        replies = work_pb2.WorkReplyEnvelope.FromString(delivery.message.body).replies
        delivery.ack()
        if replies[0].HasField("error"):
            raise RuntimeError(replies[0].error.message)
        self.unanswered -= len(replies)
        if not self.unanswered:
            self.answered.set()

    async def _download(self, version: str, offset: int = 0) -> Any:
        yield self.artifact[offset:]


def model(folder: Path) -> tuple[repository_pb2.ModelVersion, bytes]:
    """A logistic regression over four features, and its artifact."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, labels = load_iris(return_X_y=True)
    path = folder / "iris.skops"
    skops.io.dump(LogisticRegression(max_iter=500).fit(features, labels), path)
    data = path.read_bytes()
    version = repository_pb2.ModelVersion(
        name=_NAME, version=1, format="skops", sha256=sha256(data).hexdigest(), size_bytes=len(data)
    )
    method = version.signature.add(method="predict")
    method.inputs.append(tensor_pb2.TensorSpec(name="X", datatype="FP64", shape=[-1, 4]))
    method.outputs.append(tensor_pb2.TensorSpec(name="predict", datatype="INT64", shape=[-1]))
    return version, data


def envelope(items: int) -> bytes:
    """An envelope as a router sends it, one row an item."""
    rows = np.random.default_rng(7).random((items, 1, 4))
    return work_pb2.WorkEnvelope(
        key=serving_key(_NAME, repository_pb2.ModelVersion().requires),
        items=[
            work_pb2.WorkItem(
                id=f"router.{number}",
                method="predict",
                inputs=[from_numpy("X", row)],
                timeout_ms=30_000,
                context=_CONTEXT,
            )
            for number, row in enumerate(rows)
        ],
    ).SerializeToString()


async def measure(rig: Rig, items: int, envelopes: int, seconds: float) -> Figure:
    """Rounds of so many envelopes, one after the other, for so long."""
    body = envelope(items)
    for _ in range(20):
        await rig.round(body, items, envelopes)
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        await rig.round(body, items, envelopes)
        times.append(time.perf_counter() - start)
    answered = items * envelopes * len(times)
    return Figure(
        items=items,
        envelopes=envelopes,
        cpu_us_per_item=round((time.process_time() - cpu) / answered * 1e6, 2),
        items_per_second=round(answered / (time.perf_counter() - began)),
        p50_ms=round(sorted(times)[len(times) // 2] * 1e3, 3),
    )


async def run(slots: int, seconds: float) -> list[Figure]:
    """All figures: lone requests, then envelopes as load makes them."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), slots)
        await rig.start()
        try:
            return [
                await measure(rig, items, envelopes, seconds)
                for items, envelopes in ((1, 1), (1, 16), (16, 1), (16, 4), (64, 1), (64, 4))
            ]
        finally:
            await rig.stop()


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime_path", description=__doc__)
    parser.add_argument("--slots", type=int, default=2, help="calls at a time [default: 2]")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="seconds for each figure [default: 2]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a figure")
    options = parser.parse_args()
    figures = uvloop.run(run(options.slots, options.seconds))
    if options.json:
        for figure in figures:
            print(json.dumps(asdict(figure)))
        return
    print("items  envelopes  CPU µs/item  items/s  round p50 ms")
    for row in figures:
        cost = f"{row.cpu_us_per_item:11.1f}  {row.items_per_second:7}  {row.p50_ms:12.3f}"
        print(f"{row.items:5}  {row.envelopes:9}  {cost}")


if __name__ == "__main__":
    main()
