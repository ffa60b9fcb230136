"""The report of a ready platform: one line of JSON on standard output, and the same in ready.json
while the platform runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReadyReport:
    """Addresses of a platform, and what it runs on."""

    http: str
    grpc: str
    token_file: Path
    broker: str
    mongo: str
    # Of processes that run; one that is being started again has none.
    pids: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """Returns the report as one line of JSON."""
        return json.dumps(
            {
                "ready": True,
                "http": self.http,
                "grpc": self.grpc,
                "token_file": str(self.token_file),
                "broker": self.broker,
                "mongo": self.mongo,
                "pids": dict(self.pids),
                "metrics": dict(self.metrics),
            }
        )

    def as_card(self, command: str, logs: Path, seconds: float, network: str = "") -> str:
        """Returns the report for a person: where it answers, how to sign in, first commands.

        `command` is how the user runs `stellwerk`, `logs` the directory of the log files and
        `seconds` the time that the start took. `network` says how other machines reach the
        platform, "" if they cannot.
        """
        bearer = f'"Authorization: Bearer $(cat {self.token_file})"'
        rows = (
            ("REST", f"{self.http}, documentation at {self.http}/docs"),
            ("gRPC", self.grpc),
            *((("Network", network),) if network else ()),
            ("Runs on", f"{self.broker}, {self.mongo}"),
            ("Logs", f"{logs}, a file for each process"),
            ("Token", f"{self.token_file} holds an administrator's, renewed every hour"),
            ("Sign in", f"export STELLWERK_URL={self.http} STELLWERK_TOKEN_FILE={self.token_file}"),
            ("Try", f"{command} status"),
            ("", f"{command} models list"),
            ("", f"curl -H {bearer} {self.http}/v1/status"),
        )
        lines = [f"  {title:<8} {text}" for title, text in rows]
        head = f"Stellwerk is ready after {seconds:.1f} s. Ctrl-C stops it."
        return "\n".join((head, "", *lines, ""))
