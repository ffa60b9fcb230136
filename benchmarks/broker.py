"""`python -m benchmarks.broker`: round trips through a real RabbitMQ, by the platform's adapter and
by bare pika.

One process publishes to a queue, mandatory and confirmed; another consumes it, publishes an answer
to the first one's exclusive queue, and acknowledges the question when its answer is confirmed. Both
run on uvloop, as the services do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import structlog
import uvloop

from benchmarks.bare_pika import PATIENCE_SECONDS, PREFETCH, OnMessage, Pika
from services.chassis.broker.connect import open_broker
from services.chassis.broker.port import Broker, Delivery, Message
from services.local.backing.rabbitmq import RabbitMQ
from stellwerk.wire import topology
from stellwerk.wire.topology import QueueSpec

# As a router and a runtime use them.
QUESTIONS = topology.inference_queue("bench/iris/1/any")
ANSWERS = topology.reply_queue("bench")
EXPIRATION_MS = 30_000
BODY_BYTES = 512


class Party(Protocol):
    """One process's side of the conversation."""

    async def start(self, url: str) -> None: ...

    async def listen(self, queue: QueueSpec, on_message: OnMessage) -> None: ...

    def send(self, queue: str, message: Message, confirmed: Callable[[], None]) -> None:
        """Publishes, mandatory; `confirmed` is called when the broker has the message."""
        ...

    async def close(self) -> None: ...


class Ours:
    """The platform's adapter."""

    def __init__(self) -> None:
        self._broker: Broker | None = None

    async def start(self, url: str) -> None:
        self._broker = open_broker(url, name="bench")
        await self._broker.start()

    async def listen(self, queue: QueueSpec, on_message: OnMessage) -> None:
        def handle(delivery: Delivery) -> None:
            message = delivery.message
            on_message(message.body, message.reply_to, message.correlation_id, delivery.ack)

        assert self._broker is not None
        await self._broker.consume(queue, handle, prefetch=PREFETCH, acks=not queue.exclusive)

    def send(self, queue: str, message: Message, confirmed: Callable[[], None]) -> None:
        assert self._broker is not None
        self._broker.post(queue, message).add_done_callback(lambda _: confirmed())

    async def close(self) -> None:
        assert self._broker is not None
        await self._broker.close()


PARTIES: dict[str, Callable[[], Party]] = {"ours": Ours, "bare pika": Pika}


async def _answer(party: Party, url: str, listening: Any, over: Any) -> None:
    await party.start(url)

    def on_question(
        body: bytes, reply_to: str, correlation_id: str, ack: Callable[[], None]
    ) -> None:
        party.send(reply_to, Message(body, correlation_id=correlation_id), ack)

    await party.listen(QUESTIONS, on_question)
    listening.set()
    await asyncio.to_thread(over.wait)
    await party.close()


@dataclass(frozen=True, slots=True)
class Result:
    """Of one load: round trips, their latencies in seconds, and CPU-seconds of the three
    processes.
    """

    seconds: float
    latencies: list[float]
    asking: float
    answering: float
    broker: float


class Asking:
    """The asking side: keeps a number of questions in flight."""

    def __init__(self, party: Party, answering: psutil.Process, broker: psutil.Process) -> None:
        self._party = party
        self._processes = (psutil.Process(), answering, broker)
        self._waiting: dict[str, float] = {}
        self._latencies: list[float] = []
        self._last = 0
        self._until = 0.0
        self._over = asyncio.Event()

    async def start(self, url: str) -> None:
        await self._party.start(url)
        await self._party.listen(ANSWERS, self._on_answer)

    async def load(self, in_flight: int, seconds: float) -> Result:
        """Keeps `in_flight` questions open for `seconds`; each answer brings the next one."""
        self._latencies, began = [], time.perf_counter()
        before = [_cpu(process) for process in self._processes]
        self._until = began + seconds
        self._over.clear()
        for _ in range(in_flight):
            self._ask()
        async with asyncio.timeout(seconds + PATIENCE_SECONDS):
            await self._over.wait()
        spent = [_cpu(process) - was for process, was in zip(self._processes, before, strict=True)]
        return Result(time.perf_counter() - began, self._latencies, *spent)

    def _ask(self) -> None:
        self._last += 1
        name = str(self._last)
        self._waiting[name] = time.perf_counter()
        message = Message(
            bytes(BODY_BYTES),
            reply_to=ANSWERS.name,
            correlation_id=name,
            expiration_ms=EXPIRATION_MS,
        )
        self._party.send(QUESTIONS.name, message, lambda: None)

    def _on_answer(self, _: bytes, __: str, correlation_id: str, ack: Callable[[], None]) -> None:
        now = time.perf_counter()
        self._latencies.append(now - self._waiting.pop(correlation_id))
        ack()
        if now < self._until:
            self._ask()
        elif not self._waiting:
            self._over.set()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def _run_in_child(name: str, url: str, listening: Any, over: Any) -> None:
    _be_quiet()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_answer(PARTIES[name](), url, listening, over))


async def _measure(name: str, server: RabbitMQ, seconds: float) -> None:
    spawning = multiprocessing.get_context("spawn")
    listening, over = spawning.Event(), spawning.Event()
    child = spawning.Process(target=_run_in_child, args=(name, server.url, listening, over))
    child.start()
    try:
        await asyncio.to_thread(listening.wait, PATIENCE_SECONDS)
        party = PARTIES[name]()
        asking = Asking(party, psutil.Process(child.pid), psutil.Process(server.pid))
        await asking.start(server.url)
        await asking.load(8, 0.5)
        for in_flight in (1, 64):
            print(_row(name, in_flight, await asking.load(in_flight, seconds)), flush=True)
        await party.close()
    finally:
        over.set()
        await asyncio.to_thread(child.join, PATIENCE_SECONDS)


def _row(name: str, in_flight: int, result: Result) -> str:
    count = len(result.latencies)
    each = " ".join(
        f"{spent / count * 1e6:9.0f}" for spent in (result.asking, result.answering, result.broker)
    )
    median = statistics.median(result.latencies) * 1e6
    return f"{name:10} {in_flight:9} {count / result.seconds:9.0f} {median:9.0f} {each}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker", description=__doc__)
    parser.add_argument(
        "parties", nargs="*", metavar="PARTY", help=f"of {', '.join(PARTIES)} [default: all]"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long each load lasts [default: 2]"
    )
    options = parser.parse_args()
    _be_quiet()
    with tempfile.TemporaryDirectory(prefix="stellwerk-bench-") as directory:
        server = RabbitMQ(Path(directory))
        server.start()
        try:
            print(f"RabbitMQ {server.version}; CPU in µs a round trip")
            print("adapter    in flight     per s    p50 µs    asking answering  RabbitMQ")
            for name in options.parties or PARTIES:
                measuring: Awaitable[None] = _measure(name, server, options.seconds)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(measuring)  # type: ignore[arg-type]
        finally:
            server.stop()


if __name__ == "__main__":
    main()
