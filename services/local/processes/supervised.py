"""One service process kept alive: started, its log passed on line by line, started again when it
ends.

The wait before a restart doubles from 0.2 s to 10 s and begins anew once a process has stayed up
for 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from services.local.plan import Service
from services.local.processes.logs import LogStream

FIRST_DELAY, LONGEST_DELAY, STEADY_SECONDS = 0.2, 10.0, 30.0
_READ_BYTES = 65_536
# A line longer than this is passed on in pieces.
_LONGEST_LINE = 1_048_576
# 1 is PR_SET_PDEATHSIG and 9 SIGKILL; the setting survives execve. Whoever lost its parent before
# that goes at once.
_STARTER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def restart_delay(previous: float, uptime: float) -> float:
    """Seconds to wait before the next start, from the wait before the last one (0 for none) and how
    long it ran.
    """
    if previous == 0 or uptime >= STEADY_SECONDS:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)


class Supervised:
    """A process of the platform. `run` keeps it alive until `stop` or `kill`."""

    def __init__(
        self, service: Service, directory: Path, logs: LogStream, changed: Callable[[], None]
    ) -> None:
        self.service = service
        self.restarts = 0
        self.last_exit: int | None = None
        self._directory = directory
        self._logs = logs
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    def listens_on(self, port: int) -> bool:
        """Returns whether this process itself, not another program, listens on the TCP port."""
        pid = self.pid
        if pid is None:
            return False
        try:
            sockets = psutil.Process(pid).net_connections("tcp")
        except psutil.AccessDenied:
            # Some hardened kernels hide a process's sockets even from its parent.
            return True
        except psutil.NoSuchProcess:
            return False
        return any(
            found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in sockets
        )

    async def run(self) -> None:
        """Starts the process again and again until told to stop."""
        delay = 0.0
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                self.last_exit = await self._run_once()
                if self._stopping.is_set():
                    return
                delay = restart_delay(delay, time.monotonic() - began)
                how = _how_it_ended(self.last_exit)
                self._logs.say(
                    "process_ended", process=self.name, how=how, restart_in_seconds=delay
                )
                self.restarts += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
        finally:
            self._ended.set()

    async def stop(self, grace: float) -> None:
        """Asks the process to end and waits; after `grace` seconds it is killed."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), grace)
        except TimeoutError:
            self._logs.say("process_killed", process=self.name, after_seconds=round(grace, 1))
            self.kill()
            await self._ended.wait()

    def restart(self) -> None:
        """Ends the process at once; it is started again."""
        self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Ends the process at once, for good."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _run_once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *dying_with_us(self.service.command),
            env=dict(self.service.environment),
            cwd=self._directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in the terminal must reach us alone: we say who stops first.
            start_new_session=True,
        )
        self._changed()
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        assert self._process.stdout is not None
        # Read to the end of the pipe but not beyond the process: something it left behind may hold
        # the pipe open.
        reader = asyncio.create_task(self._pass_on(self._process.stdout))
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader, 1.0)
        self._sweep()
        self._changed()
        return code

    def _sweep(self) -> None:
        """Ends what the process left behind in its session, such as workers of a runtime."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _pass_on(self, stream: asyncio.StreamReader) -> None:
        kept = b""
        while chunk := await stream.read(_READ_BYTES):
            *lines, kept = (kept + chunk).split(b"\n")
            if len(kept) > _LONGEST_LINE:
                lines, kept = [*lines, kept], b""
            for line in lines:
                self._emit(line)
        self._emit(kept)

    def _emit(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._logs.line(self.name, text)


def _how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def dying_with_us(command: Sequence[str]) -> list[str]:
    """The command behind a starter that asks the kernel to kill it when we are gone, however we
    went. Linux only.

    A starter, because code between fork and exec (preexec_fn) is not safe beside threads, gRPC's
    least of all.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _STARTER, str(os.getpid()), *command]
