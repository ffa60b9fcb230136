"""Tells the demo from beginning to end, a function for each step.

A step that fails ends the demo; the platform is stopped in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from demo import models
from demo.callers import CALLS, bearer
from demo.models import Trained
from demo.platform import NotUp, Platform, Running
from stellwerk.client import Client, connect, errors
from stellwerk.router.v1 import router_service_pb2, router_service_pb2_grpc

# The largest difference of a score that passes; the largest seen is 9.4e-7, of float32 in JSON.
TOLERANCE = 1e-5
_DIRECTORY = Path(".stellwerk/demo")
# Seconds: a first start on one slow core, while three models are trained beside it.
_READY_SECONDS = 150.0


@dataclass
class Story:
    """The checks and measurements so far, and where they are printed."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    failed: list[str] = field(default_factory=list)
    rows: list[tuple[str, str, float, float, float]] = field(default_factory=list)

    def check(self, what: str, holds: bool) -> None:
        """Prints a check, and remembers it if it does not hold."""
        self.console.print(f"   [green]✓[/] {what}" if holds else f"   [red]✗ {what}[/]")
        if not holds:
            self.failed.append(what)

    @contextmanager
    def step(self, number: int, title: str) -> Iterator[None]:
        """Prints the title of a step, and its duration at its end."""
        began = time.monotonic()
        self.console.print(f"\n[bold]{number}. {title}[/]")
        yield
        self.console.print(f"   [dim]{time.monotonic() - began:.1f} s[/]")


def run() -> int:
    """Runs all steps; returns the exit code."""
    story, began = Story(), time.monotonic()
    _DIRECTORY.parent.mkdir(exist_ok=True)
    platform = Platform(_DIRECTORY.absolute(), _DIRECTORY.parent.absolute() / "demo.log")
    try:
        _tell(story, platform)
    except (NotUp, errors.ServiceError, httpx.HTTPError, grpc.RpcError) as exc:
        story.check(f"the demo could go on: {_sentence(exc)}", False)
    except KeyboardInterrupt:
        story.check("the demo was not interrupted", False)
    finally:
        code = platform.stop()
    story.check("the platform stopped cleanly", code == 0)
    _summary(story, platform, time.monotonic() - began)
    return 1 if story.failed else 0


def _tell(story: Story, platform: Platform) -> None:
    with story.step(1, "Start the platform, and meanwhile train three models"):
        trained, running = _start_and_train(story, platform)
    with connect(running.http, running.token, timeout=60) as client:
        with story.step(2, "What is running"):
            _status(story, client, running)
        with story.step(3, "Store the models"):
            _store(story, client, trained)
        with story.step(4, "Predict, and compare every answer with the model's own"):
            _predict(story, running, trained)
            _queues(story, client)
        with story.step(5, "Ask without a token"):
            _refusals(story, running)
        with story.step(6, "Look into the audit ledger"):
            _audit(story, client)
    _say_how_to_go_on(story, trained[0])


def _start_and_train(story: Story, platform: Platform) -> tuple[list[Trained], Running]:
    steps: list[Callable[[], Trained]] = [
        models.breast_cancer,
        models.digits_network,
        models.digits_onnx,
    ]
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    with (
        Progress(*columns, console=story.console, transient=True) as progress,
        ThreadPoolExecutor(1) as pool,
    ):
        task = progress.add_task("   training, while the platform starts", total=len(steps) + 1)
        ready = pool.submit(platform.ready, _READY_SECONDS)
        trained = []
        for train in steps:
            trained.append(train())
            progress.advance(task)
        running = ready.result()
    for model in trained:
        text = (
            f"   {model.name}: {model.kind}, right on {model.accuracy:.1%} of {len(model.rows)}"
            " held-out rows"
        )
        story.console.print(text)
    return trained, running


def _status(story: Story, client: Client, running: Running) -> None:
    status = client.status()
    story.console.print(f"   work travels by {running.broker}")
    story.console.print(f"   records are kept in {running.mongo}")
    for runtime in status.runtimes:
        accelerators = ", ".join(device.name for device in runtime.accelerators) or "no accelerator"
        story.console.print(
            f"   {runtime.name}: {runtime.cpu_cores} cores, {runtime.memory_bytes / 2**30:.0f} GiB,"
            f" {accelerators}, formats {', '.join(sorted(runtime.formats))}"
        )
    story.check("five services are up, each a process of its own", _five_services(status, running))
    story.check("the platform says it is ready", status.ready)


def _five_services(status: Any, running: Running) -> bool:
    wanted = {"api_gateway", "router", "runtime", "repository", "controlplane"}
    described = {service.service for service in status.services} | (
        {"runtime"} if status.runtimes else set()
    )
    return wanted <= set(running.processes) and wanted <= described


def _store(story: Story, client: Client, trained: list[Trained]) -> None:
    for model in trained:
        version = client.models.put(
            model.model, model.name, example=model.example, alias="production"
        )
        story.check(
            f"{version.name}: {version.format}, {version.size_bytes:,} bytes, sha256"
            f" {version.sha256[:12]}…",
            client.models.describe(model.name, alias="production").sha256 == version.sha256,
        )


def _predict(story: Story, running: Running, trained: list[Trained]) -> None:
    for model in trained:
        for way, call in CALLS.items():
            began = time.monotonic()
            scores = call(running, model)
            seconds = time.monotonic() - began
            off = (
                float(np.abs(scores - model.scores).max())
                if scores.shape == model.scores.shape
                else float("inf")
            )
            accuracy = models.accuracy(scores, model.labels)
            story.check(
                f"{model.name} by {way}: {len(scores)} rows, at most {off:.1e} off",
                off <= TOLERANCE,
            )
            story.rows.append((model.name, way, accuracy, off, seconds))


def _queues(story: Story, client: Client) -> None:
    for queue in client.status().queues:
        story.console.print(
            f"   went through {queue.name}, {queue.consumers} consumer(s), {queue.messages} waiting"
        )


def _refusals(story: Story, running: Running) -> None:
    url = f"{running.http}/v1/buckets/default/models"
    nobody = httpx.get(url, timeout=10)
    story.check(
        "REST without a token: 401 and WWW-Authenticate",
        (nobody.status_code, "www-authenticate" in nobody.headers) == (401, True),
    )
    forged = httpx.get(
        url, headers={"Authorization": f"{bearer(running)['Authorization'][:-4]}AAAA"}, timeout=10
    )
    story.check("REST with a forged token: 401", forged.status_code == 401)
    story.check(
        "gRPC without a token: UNAUTHENTICATED",
        _grpc_code(running) is grpc.StatusCode.UNAUTHENTICATED,
    )
    story.check(
        "health is for everybody",
        httpx.get(f"{running.http}/v2/health/ready", timeout=10).status_code == 200,
    )


def _grpc_code(running: Running) -> grpc.StatusCode:
    with grpc.insecure_channel(running.grpc) as channel:
        stub: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        try:
            stub.ListRuntimes(router_service_pb2.ListRuntimesRequest(), timeout=10)
        except grpc.RpcError as exc:
            code: grpc.StatusCode = exc.code()
            return code
    return grpc.StatusCode.OK


def _audit(story: Story, client: Client) -> None:
    finding = client.audit.verify()
    story.check(
        f"the chain of {finding.checked} records is whole", finding.intact and finding.checked > 0
    )


def _say_how_to_go_on(story: Story, model: Trained) -> None:
    story.console.print(
        f"\n[bold]The same by hand:[/] .venv/bin/stellwerk up --data-dir {_DIRECTORY}, and in"
        " another terminal\n"
        f'   curl -H "Authorization: Bearer $(cat {_DIRECTORY}/token)" '
        f"http://127.0.0.1:8080/v2/models/{model.name}\n"
    )


def _summary(story: Story, platform: Platform, seconds: float) -> None:
    table = Table("model", "called by", "right", "largest difference", "time", title="Predictions")
    for name, way, accuracy, off, took in story.rows:
        table.add_row(name, way, f"{accuracy:.1%}", f"{off:.1e}", f"{took * 1000:.0f} ms")
    if story.rows:
        story.console.print(table)
    if story.failed:
        story.console.print(
            f"[red bold]{len(story.failed)} checks failed[/] after {seconds:.0f} s:"
        )
        for what in story.failed:
            story.console.print(f"   {what}", markup=False)
        story.console.print(f"The platform's log is {platform.log}")
    else:
        story.console.print(f"[green bold]All checks hold.[/] {seconds:.0f} s in all.")


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, grpc.RpcError):
        return f"{exc.code().name}: {exc.details()}"
    if isinstance(exc, httpx.HTTPStatusError):
        return f"{exc.response.status_code} {exc.response.text[:300]}"
    return str(exc)
