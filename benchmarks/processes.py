"""Starts the processes that are measured, waits until they answer, reads their CPU time, and ends them."""

from __future__ import annotations

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
    """A process and its descendants. Its output goes to a log file; of one that `speaks`, only standard error does."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path | None = None, speaks: bool = False):
        self.log = log
        with log.open("wb") as sink:
            stdout = subprocess.PIPE if speaks else sink
            self._process = subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=sink, stdin=subprocess.DEVNULL)

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
        try:
            parent = psutil.Process(self._process.pid)
            return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

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


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """User and system time of each process that still lives."""
    times = {}
    for pid in pids:
        try:
            spent = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        times[pid] = spent.user + spent.system
    return times


def spent_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU-seconds between two readings; a process that came in between counts from zero, one that went does not."""
    return sum(value - before.get(pid, 0.0) for pid, value in after.items())


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
