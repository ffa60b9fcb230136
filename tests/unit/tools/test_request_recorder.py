"""The recorder in a process of its own, with product code of the test's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.request_trace import events, stack
from tools.request_trace.events import Event, Function
from tools.request_trace.injected.sitecustomize import FOLDER, PRODUCT, ROOT

CODE = """
import asyncio, sys, threading

def leaf(): return 1
def listed(): return [[leaf() for _ in range(1)] for _ in range(1)]
def worker(): leaf()

async def inner(go):
    await go.wait()
    leaf()

async def outer(go):
    await inner(go)

async def main(folder):
    go = asyncio.Event()
    task = asyncio.create_task(outer(go))
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    with open(folder + "/switch", "r+b") as switch:
        switch.write(b"\\7")
    loop.call_soon(listed)
    loop.call_later(0, worker)
    go.set()
    await task
    thread = threading.Thread(target=worker, name="slot")
    thread.start()
    thread.join()
    await asyncio.sleep(0.01)

"""


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Event]:
    """The events of a process that works and waits on one of two event loops."""
    root = tmp_path_factory.mktemp("recorded")
    (root / "services").mkdir()
    (root / "services" / "__init__.py").touch()
    (root / "services" / "work.py").write_text(
        f"{CODE}import {request.param}\n{request.param}.run(main(sys.argv[1]))\n"
    )
    (root / "switch").write_bytes(b"\0")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{stack.REPOSITORY / 'tools/request_trace/injected'}:{root}",
        FOLDER: str(root),
        ROOT: str(root),
        PRODUCT: f"{root}/services/",
    }
    command = [sys.executable, "-m", "services.work", str(root)]
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=30)
    found = events.read(root)
    assert found.lines[7, work("leaf")]
    return found.events


def work(name: str) -> Function:
    return Function("services/work.py", name)


def callers(recorded: list[Event], name: str) -> list[Function | None]:
    return [event.edge.caller for event in recorded if event.edge.callee == work(name)]


def test_only_what_happens_during_a_recording_is_recorded(recorded: list[Event]) -> None:
    assert {event.recording for event in recorded} == {7}
    assert {event.edge.process for event in recorded} == {"work"}
    assert not any(event.edge.callee.name == "<module>" for event in recorded)


def test_an_event_loop_is_no_caller(recorded: list[Event]) -> None:
    assert callers(recorded, "listed")[0] is None
    assert callers(recorded, "outer") == [None]


def test_a_comprehension_is_part_of_its_function(recorded: list[Event]) -> None:
    assert work("listed") in callers(recorded, "leaf")


def test_a_coroutine_that_waited_is_resumed_and_not_entered(recorded: list[Event]) -> None:
    resumed = {event.edge.callee.name for event in recorded if event.resumed}

    assert resumed == {"outer", "inner", "main"}
    assert callers(recorded, "inner") == [work("outer")]


def test_a_thread_is_recorded_and_a_timer_is_not(recorded: list[Event]) -> None:
    threads = [event.thread for event in recorded if event.edge.callee == work("worker")]

    assert threads == ["slot"]
