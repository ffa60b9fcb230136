"""What a ready platform says of itself: one line of JSON on standard output, and the same in a file
while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.local.secrets import write


@dataclass(frozen=True, slots=True)
class Report:
    """Where the platform is and what it runs on."""

    http: str
    grpc: str
    token_file: Path
    broker: str
    mongo: str
    pids: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
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


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """The file that is there while the platform is ready."""

    path: Path

    def write(self, report: Report) -> str:
        """Writes the report; returns its JSON."""
        text = report.as_json()
        write(self.path, text + "\n")
        return text

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
