"""Keeps one service process alive: starts it, passes its log on, and starts it again when it ends.

The wait before a restart doubles from 0.2 s to 10 s and begins anew once a process has stayed up
for 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil

from services.local.plan import PlannedProcess
from services.local.processes.logs import Logs, cause

FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
STEADY_SECONDS = 30.0
# The exit code of a service whose settings cannot be used: EX_CONFIG of sysexits.h.
CONFIGURATION_ERROR = 78
# A pipe takes as much as a service writes at once, where the kernel allows that; a service would
# wait for us otherwise.
_PIPE_BYTES = 1_048_576
# No more at once: the loop waits while its lines are shown.
_READ_BYTES = 65_536
# Between two reads, unless there may be more: reading each line as it comes costs more
# than everything done with it.
_GATHER_SECONDS = 0.02
# 1 MiB: a longer line is passed on in pieces.
_LONGEST_LINE = 1_048_576
# Kept to say why a process ended: the refusal of settings is one line for each variable.
_LAST_BYTES = 65_536
# 1 is PR_SET_PDEATHSIG and 9 SIGKILL; the setting survives execve. A process whose parent is gone
# already ends at once.
_STARTER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def restart_delay(previous: float, uptime: float) -> float:
    """Returns the seconds to wait before the next start.

    `previous` is the wait before the last start, 0 for none; `uptime` the seconds it ran.
    """
    if previous == 0 or uptime >= STEADY_SECONDS:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)


class Supervised:
    """A process of the platform. `run` keeps it alive until `stop` or `kill`."""

    def __init__(
        self, planned: PlannedProcess, directory: Path, logs: Logs, changed: Callable[[], None]
    ) -> None:
        """Takes the `directory` to run in; calls `changed` when there is a new pid or none."""
        self.planned = planned
        # Why its settings cannot be used; "" while they can.
        self.refusal = ""
        self._directory = directory
        self._logs = logs
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._last_printed = b""
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def name(self) -> str:
        """The name of the process."""
        return self.planned.name

    @property
    def pid(self) -> int | None:
        """The process id, None while the process does not run."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    def listens(self) -> bool:
        """Returns whether this process itself, not another program, listens on its port."""
        port = int(self.planned.address.rpartition(":")[2])
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

    async def run(self, after: asyncio.Task[None] | None = None) -> None:
        """Starts the process, once `after` is done, again and again until told to stop."""
        delay = 0.0
        try:
            if after is not None:
                stopping = asyncio.ensure_future(self._stopping.wait())
                await asyncio.wait([after, stopping], return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
            while not self._stopping.is_set():
                began = time.monotonic()
                code = await self._run_once()
                if self._stopping.is_set():
                    return
                if code == CONFIGURATION_ERROR:
                    self.refusal = cause(self._last_printed) or "the settings cannot be used"
                delay = restart_delay(delay, time.monotonic() - began)
                self._say_ended(_how_it_ended(code), delay)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._stopping.wait()
        finally:
            self._ended.set()

    def _say_ended(self, how: str, delay: float) -> None:
        log = self._logs.file_of(self.name)
        self._logs.say(
            "process_ended",
            f"{self.name} ended ({how}) and is started again in {delay:g} s; its log is {log}",
            level="warning",
            process=self.name,
            how=how,
            restart_in_seconds=delay,
        )

    async def stop(self, grace: float, *, quiet: bool = False) -> None:
        """Asks the process to end and waits; after `grace` seconds it is killed.

        `quiet` leaves it to the log that it had to be killed.
        """
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            sentence = f"{self.name} did not stop within {grace:.0f} s and is killed"
            self._logs.say(
                "process_killed",
                "" if quiet else sentence,
                level="warning",
                process=self.name,
                after_seconds=round(grace, 1),
            )
            self.kill()
            await self._ended.wait()

    def restart(self) -> None:
        """Ends the process at once; `run` starts it again."""
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
        """Starts the process, waits for its end and returns its exit code."""
        self._last_printed = b""
        with _pipe() as (our_end, their_end):
            self._process = await asyncio.create_subprocess_exec(
                *dying_with_us(self.planned.command),
                env=dict(self.planned.environment),
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=their_end,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C in the terminal must reach the supervisor alone: it decides who stops
                # first.
                start_new_session=True,
            )
            their_end.close()
            self._changed()
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            reader = asyncio.create_task(self._pass_on(our_end))
            code = await self._process.wait()
            self._sweep()
            # To the end of the pipe, but not for long: something that the process left behind
            # outside of its group may hold the pipe open.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await reader
        self._changed()
        return code

    def _sweep(self) -> None:
        """Ends what the process left behind in its session, such as workers of a runtime."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _pass_on(self, pipe: IO[bytes]) -> None:
        kept = b""
        try:
            while chunk := await _read(pipe):
                printed = kept + chunk if kept else chunk
                end = printed.rfind(b"\n") + 1
                if len(printed) - end > _LONGEST_LINE:
                    printed += b"\n"
                    end = len(printed)
                self._emit(printed[:end])
                kept = printed[end:]
                if len(chunk) < _READ_BYTES:
                    await asyncio.sleep(_GATHER_SECONDS)
        finally:
            self._emit(kept and kept + b"\n")

    def _emit(self, lines: bytes) -> None:
        if lines:
            said = self._last_printed + lines[-_LAST_BYTES - 1 :]
            if len(said) > _LAST_BYTES:
                said = said[-_LAST_BYTES:].partition(b"\n")[2]
            self._last_printed = said
            self._logs.lines(self.name, lines)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a pipe and yields our end and that of a process; closes both.

    With asyncio's own pipe `Process.wait` would return only when nobody holds the pipe any more
    (https://github.com/python/cpython/issues/119710).
    """
    our_end, their_end = (
        os.fdopen(end, mode, buffering=0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
    )
    with our_end, their_end:
        with contextlib.suppress(AttributeError, OSError):
            fcntl.fcntl(their_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        yield our_end, their_end


async def _read(pipe: IO[bytes]) -> bytes:
    """Waits for what is in the pipe and returns it; b"" at the pipe's end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(pipe, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(pipe)
    return os.read(pipe.fileno(), _READ_BYTES)


def _how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def dying_with_us(command: Sequence[str]) -> list[str]:
    """Returns the command behind a starter that asks the kernel to kill it when we end, however we
    end. Linux only; elsewhere the command as it is.

    A starter is used because code between fork and exec (preexec_fn) is not safe beside threads,
    least of all those of gRPC.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _STARTER, str(os.getpid()), *command]
