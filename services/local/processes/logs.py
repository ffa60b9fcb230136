"""Merges the logs of all processes into one stream of whole lines.

On a terminal each line gets its service's name in a colour and is laid out for reading; elsewhere
the JSON of the services passes through unchanged, and a line that is none becomes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_NAME_WIDTH = 13
_OWN = "stellwerk"
# Said by the name in front or by the layout.
_LAID_OUT = ("service", "instance", "level", "timestamp", "event", "exception")


class Sink(Protocol):
    """Where text goes, such as sys.stderr."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> None: ...


class LogStream:
    """Takes lines of named processes and writes them, one at a time."""

    def __init__(self, sink: Sink, *, terminal: bool) -> None:
        self._sink = sink
        self._terminal = terminal
        self._colours: dict[str, int] = {_OWN: 1}

    def line(self, process: str, text: str) -> None:
        """One line of a process, as it came."""
        record = _parse(text)
        if not self._terminal:
            self._write(_passed_on(process, text, record))
        elif record is None:
            self._write(f"{self._name(process)} {text}")
        else:
            self._write(f"{self._name(process)} {_layout(record)}")

    def say(self, event: str, **fields: object) -> None:
        """A line of the supervisor itself."""
        self.line(_OWN, _as_json(_OWN, event, fields))

    def _name(self, process: str) -> str:
        colour = self._colours.setdefault(
            process, _COLOURS[(len(self._colours) - 1) % len(_COLOURS)]
        )
        return f"\x1b[{colour}m{process:<{_NAME_WIDTH}}\x1b[0m"

    def _write(self, text: str) -> None:
        try:
            self._sink.write(text + "\n")
            self._sink.flush()
        except (BrokenPipeError, ValueError):
            # Nobody reads any more; the platform goes on.
            return


def _passed_on(process: str, text: str, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return _as_json(process, "output", {"line": text})
    return text if "service" in record else json.dumps({"service": process, **record})


def _parse(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _as_json(service: str, event: str, fields: Mapping[str, object]) -> str:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(
        {"service": service, **fields, "event": event, "level": "info", "timestamp": stamp},
        default=str,
    )


def _layout(record: Mapping[str, Any]) -> str:
    time = str(record.get("timestamp", ""))[11:23]
    level = str(record.get("level", ""))
    said = {
        key: value
        for key, value in record.items()
        if key not in _LAID_OUT and value not in (None, "")
    }
    fields = " ".join(f"\x1b[2m{key}=\x1b[0m{value}" for key, value in said.items())
    mark = f"\x1b[{_LEVEL_COLOURS[level]}m{level}\x1b[0m " if level in _LEVEL_COLOURS else ""
    line = f"\x1b[2m{time}\x1b[0m {mark}{record.get('event', '')} {fields}".rstrip()
    return line + _traceback(record.get("exception"))


def _traceback(exception: Any) -> str:
    """What was raised where, from structlog's dictionary form; the JSON has all of it."""
    if not isinstance(exception, list):
        return f"\n{exception}" if exception else ""
    lines = []
    for part in exception:
        for frame in part.get("frames", [])[-4:]:
            lines.append(
                f"    {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
            )
        lines.append(f"    {part.get('exc_type')}: {part.get('exc_value')}")
    return "\n" + "\n".join(lines)
