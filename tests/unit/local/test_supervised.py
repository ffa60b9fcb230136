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
async def supervised(tmp_path: Path, script: str) -> AsyncIterator[Path]:
    """Keeps a script alive; yields its log."""
    logs = Logs(io.StringIO(), terminal=False, verbose=False)
    logs.keep_in(tmp_path)
    planned = PlannedProcess(
        "runtime", "runtime", (sys.executable, "-c", script), {}, "127.0.0.1:1"
    )
    process = Supervised(planned, tmp_path, logs, lambda: None)
    running = asyncio.create_task(process.run())
    try:
        yield tmp_path / "runtime.log"
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
    async with supervised(tmp_path, script) as log:
        await eventually(lambda: log.exists() and log.read_text().count("up") > 1, within=60)


async def test_a_process_that_prints_what_no_reader_expects_is_read_on(tmp_path: Path) -> None:
    script = """
import time
print('{"level": "error", "exception": ["Traceback", "ValueError: bad"]}')
print("error \\xff" * 100_000)
print("after", flush=True)
time.sleep(600)
"""
    async with supervised(tmp_path, script) as log:
        await eventually(lambda: log.exists() and "after" in log.read_text(), within=60)
