"""One process that the supervisor keeps alive, whatever it prints and leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.plan import PlannedProcess
from services.local.processes.logs import Logs
from services.local.processes.supervised import Supervised
from tests.fakes.eventually import eventually


@contextlib.asynccontextmanager
async def supervised(tmp_path: Path, script: str) -> AsyncIterator[tuple[Supervised, Path]]:
    """Keeps a script alive; yields its process and log."""
    logs = Logs(io.StringIO(), terminal=False, verbose=False)
    logs.keep_in(tmp_path)
    planned = PlannedProcess(
        "runtime", "runtime", (sys.executable, "-c", script), {}, "127.0.0.1:1"
    )
    process = Supervised(planned, tmp_path, logs, lambda: None)
    running = asyncio.create_task(process.run())
    try:
        yield process, tmp_path / "runtime.log"
    finally:
        process.kill()
        await asyncio.wait_for(running, 10)


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_process_whose_child_keeps_its_output_open_is_started_again(
    tmp_path: Path, own_session: bool
) -> None:
    script = f"""
import subprocess
print("up", flush=True)
subprocess.Popen(["sleep", "20"], start_new_session={own_session})
"""
    async with supervised(tmp_path, script) as (_, log):
        await eventually(lambda: log.exists() and log.read_text().count("up") > 1, within=60)


async def test_a_process_that_prints_what_no_reader_expects_is_read_on(tmp_path: Path) -> None:
    script = """
import time
print('{"level": "error", "exception": ["Traceback", "ValueError: bad"]}')
print("error \\xff" * 100_000)
print("after", flush=True)
time.sleep(600)
"""
    async with supervised(tmp_path, script) as (_, log):
        await eventually(lambda: log.exists() and "after" in log.read_text(), within=60)


async def test_all_that_a_process_prints_at_once_is_in_its_log(tmp_path: Path) -> None:
    script = """
import time
print("\\n".join(f"{number:06d}" for number in range(200_000)), flush=True)
print("x" * 3_000_000, flush=True)
time.sleep(600)
"""
    async with supervised(tmp_path, script) as (_, log):
        await eventually(lambda: log.exists() and log.read_bytes().endswith(b"x\n"), within=60)
        lines = log.read_text().split("\n")
        assert lines[:200_000] == [f"{number:06d}" for number in range(200_000)]
        await eventually(lambda: log.read_text().count("x") == 3_000_000, within=60)
        # Too long a line comes in pieces, so that it fills no memory.
        assert len(log.read_text().split("\n")) > 200_003


async def test_a_refusal_is_told_however_much_was_printed_before(tmp_path: Path) -> None:
    script = """
import sys
print("\\n".join(f"{number:06d}" for number in range(20_000)))
print('{"level": "error", "variable": "X", "problem": "is not a number"}')
sys.exit(78)
"""
    async with supervised(tmp_path, script) as (process, _):
        await eventually(lambda: process.refusal, within=60)
        assert process.refusal == "X: is not a number"


async def test_a_cut_line_is_no_reason(tmp_path: Path) -> None:
    script = """
import sys
print('{"level": "info", "event": "' + "x" * 200_000 + '"}')
print("no such directory", end="")
sys.exit(78)
"""
    async with supervised(tmp_path, script) as (process, _):
        await eventually(lambda: process.refusal, within=60)
        assert process.refusal == "no such directory"


async def test_what_is_printed_between_two_reads_before_the_end_is_not_lost(tmp_path: Path) -> None:
    script = """
import os, time
os.write(1, b"first\\n")
time.sleep(0.008)
os.write(1, b"last\\n")
os._exit(78)
"""
    async with supervised(tmp_path, script) as (process, _):
        await eventually(lambda: process.refusal, within=60)
        assert process.refusal == "first; last"
