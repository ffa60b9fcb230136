"""Starts the platform as a user does: `stellwerk up` in a process of its own, on free ports, in the
demo's directory.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.local import ports

# `stellwerk up` ends within 30 s.
_STOP_SECONDS = 40


class NotUp(Exception):
    """Raised when the platform does not come up; the message says why."""


@dataclass(frozen=True)
class Running:
    """Addresses, token and processes of the running platform."""

    http: str
    grpc: str
    token: str
    broker: str
    mongo: str
    processes: Mapping[str, int]


class Platform:
    """A platform that starts in the background; `ready` waits for it. Its log goes to `log`."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.log = log
        http, grpc = ports.reserve(2)
        command = [sys.executable, "-m", "services.local", "up", "--data-dir", str(directory)]
        command += ["--http-port", str(http), "--grpc-port", str(grpc), "--verbose"]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stream, start_new_session=True
            )
        self._line = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self, timeout: float) -> Running:
        """Returns the running platform. Raises NotUp after `timeout` seconds, or if it ends."""
        self._reader.join(timeout)
        if not self._line:
            said = [
                line
                for line in self.log.read_text(errors="replace").splitlines()
                if line.startswith("stellwerk:")
            ]
            raise NotUp(
                f"{' '.join(said) or 'the platform did not become ready'} (its log: {self.log})"
            )
        report: dict[str, Any] = json.loads(self._line)
        token = Path(report["token_file"]).read_text().strip()
        return Running(
            report["http"], report["grpc"], token, report["broker"], report["mongo"], report["pids"]
        )

    def stop(self) -> int:
        """Ends the platform as Ctrl-C does; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._line = self._process.stdout.readline()
