"""Takes the log lines of all processes: writes each to a bounded file of its process, and shows on
standard error what the user should see.

A verbose terminal gets every line, laid out with its process's name in a colour. A verbose pipe
gets the services' JSON unchanged, and a line that is no JSON becomes an object. Otherwise standard
error gets errors, and sentences of the supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

# 10 MB a file, and two older ones: 30 MB for each process, an hour of info at 10 calls/s.
FILE_BYTES = 10_000_000
OLDER_FILES = 2
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_SHOWN_LEVELS = ("error", "critical")
# What stands in every line of such a level, and in few others.
_SHOWN_IN_JSON = tuple(f'"{level}"'.encode() for level in _SHOWN_LEVELS)
_NAME_WIDTH = 13
_OWN = "stellwerk"
# Shown by the name in front or by the layout.
_LAID_OUT = ("service", "instance", "level", "timestamp", "event", "exception", "message")


class Sink(Protocol):
    """A stream of text, such as sys.stderr."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> None: ...


class LogFile:
    """A file of at most FILE_BYTES; when it is full it becomes the newest of OLDER_FILES older
    ones.

    A file that cannot be written is left: a full disk must not stop the platform.
    """

    def __init__(self, path: Path, limit: int = FILE_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._descriptor = -1
        self._size = 0

    def write(self, lines: bytes) -> None:
        """Appends one or more whole lines."""
        with contextlib.suppress(OSError):
            if self._descriptor < 0 or self._size + len(lines) > self._limit:
                self._reopen(len(lines))
            self._size += os.write(self._descriptor, lines)

    def _reopen(self, needed: int) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        found = self._path.stat().st_size if self._path.exists() else 0
        if found + needed > self._limit:
            for number in range(OLDER_FILES, 0, -1):
                newer = self._numbered(number - 1)
                if newer.exists():
                    newer.replace(self._numbered(number))
            found = 0
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = found

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


class Logs:
    """Takes lines of named processes and of the supervisor, and writes each where it belongs."""

    def __init__(self, sink: Sink, *, terminal: bool, verbose: bool) -> None:
        self._sink = sink
        self._terminal = terminal
        self._verbose = verbose
        self._directory: Path | None = None
        self._files: dict[str, LogFile] = {}
        self._colours: dict[str, int] = {_OWN: 1}
        # Shown on a terminal below all lines, and written anew after each.
        self._progress = ""

    def keep_in(self, directory: Path) -> None:
        """Writes every line from now on also to `directory`/PROCESS.log."""
        self._directory = directory

    def file_of(self, process: str) -> Path | None:
        """Returns the log file of a process, None if lines are not kept."""
        return self._directory / f"{process}.log" if self._directory else None

    def lines(self, process: str, lines: bytes) -> None:
        """Takes one or more whole lines as a process printed them."""
        self._keep(process, lines)
        # Nearly all lines are for the file alone, and are not read.
        if self._verbose or any(level in lines for level in _SHOWN_IN_JSON):
            for text in _texts(lines):
                self._show_line(process, text)

    def _show_line(self, process: str, text: str) -> None:
        """Shows one line, if the user should see it."""
        record = _parse(text)
        if self._verbose and not self._terminal:
            self._show(_passed_on(process, text, record))
        elif record is None:
            if self._verbose:
                self._show(f"{self._name(process)} {text}")
        elif self._verbose or record.get("level") in _SHOWN_LEVELS:
            self._show(f"{self._name(process)} {_layout(record, self._terminal)}")

    def say(self, event: str, sentence: str = "", level: str = "info", **fields: object) -> None:
        """Logs an event of the supervisor itself; a `sentence` is shown to the user too."""
        spoken = {"message": sentence} if sentence else {}
        text = _as_json(_OWN, event, level, {**fields, **spoken})
        self._keep(_OWN, f"{text}\n".encode(errors="replace"))
        if self._verbose and not self._terminal:
            self._show(text)
        elif sentence:
            self._show(sentence)
        elif self._verbose:
            self._show(f"{self._name(_OWN)} {_layout(json.loads(text), self._terminal)}")

    def part_ready(self, name: str, seconds: float) -> None:
        """Says that a part is ready, `seconds` after the start; on a terminal `progress` tells."""
        sentence = "" if self._terminal else f"{name} is ready after {seconds:.1f} s"
        self.say("part_ready", sentence, process=name, seconds=round(seconds, 1))

    def progress(self, text: str) -> None:
        """Replaces the line at the bottom of the terminal; "" takes it away. Silent elsewhere."""
        if self._terminal and text != self._progress:
            self._write(f"\r\x1b[2K{text}")
            self._progress = text

    def _keep(self, process: str, lines: bytes) -> None:
        path = self.file_of(process)
        if path is not None:
            self._files.setdefault(process, LogFile(path)).write(lines)

    def _name(self, process: str) -> str:
        if not self._terminal:
            return f"{process:<{_NAME_WIDTH}}"
        colour = self._colours.setdefault(
            process, _COLOURS[(len(self._colours) - 1) % len(_COLOURS)]
        )
        return f"\x1b[{colour}m{process:<{_NAME_WIDTH}}\x1b[0m"

    def _show(self, text: str) -> None:
        if self._progress:
            self._write(f"\r\x1b[2K{text}\n{self._progress}")
        else:
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        # Whoever read standard error may have gone, or its disk be full; the platform goes on.
        with contextlib.suppress(OSError, ValueError):
            self._sink.write(text)
            self._sink.flush()


def cause(lines: bytes) -> str:
    """Returns the last words of a process as one sentence: its errors, or else what it printed
    outside the log.
    """
    errors: list[str] = []
    printed: list[str] = []
    for line in _texts(lines):
        record = _parse(line)
        if record is None:
            printed.append(line.strip())
        elif record.get("level") in _SHOWN_LEVELS:
            # A service that refuses a setting logs the variable and the problem.
            known = [str(record[key]) for key in ("variable", "problem") if record.get(key)]
            errors.append(": ".join(known) or _told(record, colours=False))
    return "; ".join(errors or printed)


def _texts(lines: bytes) -> list[str]:
    """Returns the lines that are not empty as text. Bytes that are not UTF-8 become U+FFFD."""
    decoded = (line.decode(errors="replace").rstrip() for line in lines.split(b"\n"))
    return [text for text in decoded if text]


def _passed_on(process: str, text: str, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return _as_json(process, "output", "info", {"line": text})
    return text if "service" in record else json.dumps({"service": process, **record})


def _parse(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _as_json(service: str, event: str, level: str, fields: Mapping[str, object]) -> str:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(
        {"service": service, **fields, "event": event, "level": level, "timestamp": stamp},
        default=str,
    )


def _layout(record: Mapping[str, Any], colours: bool) -> str:
    """Returns a record as one line for people, and its exception as further ones."""
    level = str(record.get("level", ""))
    time = _painted(str(record.get("timestamp", ""))[11:23], 2, colours)
    mark = f"{_painted(level, _LEVEL_COLOURS[level], colours)} " if level in _LEVEL_COLOURS else ""
    exception = _traceback(record.get("exception"))
    return f"{time} {mark}{_told(record, colours)}".strip() + exception


def _told(record: Mapping[str, Any], colours: bool) -> str:
    """Returns the event and the fields of a record."""
    event = record.get("message") or record.get("event", "")
    fields = {
        key: value
        for key, value in record.items()
        if key not in _LAID_OUT and value not in (None, "")
    }
    told = " ".join(f"{_painted(f'{key}=', 2, colours)}{value}" for key, value in fields.items())
    return f"{event} {told}".strip()


def _painted(text: str, colour: int, colours: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colours and text else text


def _traceback(exception: Any) -> str:
    """Returns the frames of structlog's dictionary form, the innermost four of each exception, and
    any other form as it is.
    """
    try:
        lines = [line for part in exception or () for line in _frames(part)]
    except (AttributeError, LookupError, TypeError):
        lines = [str(exception)]
    return "".join(f"\n{line}" for line in lines)


def _frames(part: Mapping[str, Any]) -> list[str]:
    """Returns one exception of the form. Raises what another form leads to."""
    lines = [
        f"    {frame['filename']}:{frame['lineno']} in {frame['name']}"
        for frame in part["frames"][-4:]
    ]
    return [*lines, f"    {part['exc_type']}: {part['exc_value']}"]
