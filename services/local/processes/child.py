"""Runs one child process that never outlives us: it stops when asked, and a warden stops it when we
are killed.

The warden is a shell that waits for the end of a pipe only we hold, so it works from any thread and
for SIGKILL too. A pid file in the child's directory lets the next start end what an earlier one
left behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from services.local.errors import StartFailed

# SIGCONT first: a stopped process takes no SIGTERM. Ten seconds are enough for a database to write
# its checkpoint.
_WARDEN = """
read -r _
kill -CONT -"$1" 2>/dev/null; kill -TERM -"$1" 2>/dev/null || exit 0
i=0; while [ $i -lt 100 ] && kill -0 -"$1" 2>/dev/null; do sleep 0.1; i=$((i+1)); done
kill -KILL -"$1" 2>/dev/null
"""
_POLL_SECONDS = 0.02
# What an earlier start left behind is killed if it has not ended after 10 s.
_STALE_SECONDS = 10.0
# 10 MB: a longer log of earlier starts is put aside at the next.
_LOG_BYTES = 10_000_000


class Child:
    """A process in a session of its own, with its pid file and log in `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._warden: subprocess.Popen[bytes] | None = None
        # Whether nobody waits for the start any more.
        self.abandoned = False

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Starts the command, after it has ended what an earlier start left behind.

        Raises StartFailed if another owner uses the directory.
        """
        self._end_stale()
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                start_new_session=True,
            )
        self._warden = subprocess.Popen(
            ["/bin/sh", "-c", _WARDEN, "warden", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pid_file.write_text(
            json.dumps({"child": _identity(self._process.pid), "owner": _identity(os.getpid())})
        )

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Polls until ready.

        Raises StartFailed if the process ends, if `timeout` seconds pass, or if the start is
        abandoned meanwhile.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if self.abandoned:
                raise StartFailed(f"{self.name} was told to stop while it was starting")
            if self.pid is None:
                raise StartFailed(f"{self.name} ended while starting; its log is {self.log}")
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{self.name} was not ready after {timeout:.0f} s; its log is {self.log}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, grace: float = 10.0) -> None:
        """Ends the process: SIGTERM, and SIGKILL if it is still there after `grace` seconds."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGCONT)
            _signal_group(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                _signal_group(self._process.pid, signal.SIGKILL)
        self._forget()

    def kill(self) -> None:
        """Ends the process with SIGKILL, as a crash would."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
        self._forget()

    def _forget(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.kill()
            self._warden.wait()
            self._warden.stdin.close()
        self._process = self._warden = None
        self._pid_file.unlink(missing_ok=True)

    def _end_stale(self) -> None:
        """Ends what a dead owner left behind. Raises StartFailed if the owner lives."""
        try:
            record = json.loads(self._pid_file.read_text())
        except (OSError, ValueError):
            return
        process, owner = _find(record.get("child")), _find(record.get("owner"))
        if process is None:
            return
        if owner is not None and owner.pid != os.getpid():
            raise StartFailed(
                f"{self.log.parent} is in use by process {owner.pid}; stop it or choose another"
                " directory"
            )
        _signal_group(process.pid, signal.SIGCONT)
        process.terminate()
        deadline = time.monotonic() + _STALE_SECONDS
        while _alive(process):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(_POLL_SECONDS)


def _identity(pid: int) -> list[float]:
    """Returns pid and start time, which tell a process from a later one of the same pid."""
    return [pid, psutil.Process(pid).create_time()]


def _find(identity: object) -> psutil.Process | None:
    """Returns the living process of this identity, None if it has ended."""
    match identity:
        case [int(pid), float(started)]:
            pass
        case _:
            return None
    try:
        process = psutil.Process(pid)
        # Clocks are read in ticks: two readings of one start may differ a little.
        same = abs(process.create_time() - started) < 1
    except psutil.NoSuchProcess:
        return None
    return process if same and _alive(process) else None


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
