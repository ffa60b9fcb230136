"""Starts the processes that are measured, waits until they answer, reads their CPU time, and ends
them.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

POLL_SECONDS = 0.1


class NotReady(Exception):
    """A process did not get ready; the text holds the end of its log."""


class Child:
    """A process and its descendants. Its output goes to a log file; of one that `speaks`, only
    standard error does.

    `env` is added to the environment of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        cwd: Path | None = None,
        speaks: bool = False,
        env: Mapping[str, str] | None = None,
    ):
        self.log = log
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else sink,
                stderr=sink,
                env={**os.environ, **(env or {})},
            )

    def first_line(self) -> str:
        """The first line that it says; raises NotReady if it ends without one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line:
            raise NotReady(self._story("ended without a word"))
        return line

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Polls until ready; raises NotReady when it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                raise NotReady(self._story(f"exited with {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise NotReady(self._story(f"not ready after {seconds:g} s"))
            time.sleep(POLL_SECONDS)

    def pids(self) -> list[int]:
        """The process and all that descend from it."""
        return descendants(self._process.pid)

    def stop(self, seconds: float = 40) -> None:
        """Asks it to end, and makes it and its descendants end after a while."""
        family = [psutil.Process(pid) for pid in self.pids() if psutil.pid_exists(pid)]
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        for process in psutil.wait_procs(family, timeout=3)[1]:
            process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _story(self, what: str) -> str:
        text = self.log.read_text(errors="replace")
        return f"{' '.join(map(str, self._process.args))[:200]}: {what}\n{text[-3000:]}"  # type: ignore[arg-type]


def descendants(pid: int) -> list[int]:
    """A process and all that descend from it; none if it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def run_generator(command: Sequence[str]) -> tuple[str, float]:
    """Runs a load generator; returns its standard output and the CPU-seconds that it took itself.

    Raises CalledProcessError if it fails. No other child may be waited for meanwhile.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class CpuClock:
    """The CPU time, user and system, that the parts of a system spend from now on.

    With `kernel`, only the system's half of it.
    """

    def __init__(
        self, parts: Callable[[], Mapping[str, Sequence[int]]], kernel: bool = False
    ) -> None:
        self._parts = parts
        self._kernel = kernel
        self._before = self._read()

    def spent(self) -> dict[str, float]:
        """CPU-seconds of each part since the start."""
        return spent_between(self._before, self._read())

    def _read(self) -> dict[str, dict[int, float]]:
        return {part: _cpu_seconds(pids, self._kernel) for part, pids in self._parts().items()}


def _cpu_seconds(pids: Sequence[int], kernel: bool) -> dict[int, float]:
    times = {}
    for pid in pids:
        try:
            spent = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        times[pid] = spent.system if kernel else spent.user + spent.system
    return times


def thread_user_seconds(pid: int) -> dict[int, float]:
    """Returns the user CPU time of each thread of a process, by the thread's id."""
    return {thread.id: thread.user_time for thread in psutil.Process(pid).threads()}


def spent_between(
    before: Mapping[str, Mapping[int, float]], after: Mapping[str, Mapping[int, float]]
) -> dict[str, float]:
    """CPU-seconds of each part between two readings of its processes.

    A process that came in between counts from zero, one that went does not count.
    """
    return {
        part: sum(value - before.get(part, {}).get(pid, 0.0) for pid, value in pids.items())
        for part, pids in after.items()
    }


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
