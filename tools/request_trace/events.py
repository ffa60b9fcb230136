"""What the recorder wrote, read back: calls of product functions, and the lines that ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias


class Function(NamedTuple):
    """A function by its file, as a path below the repository, and its qualified name."""

    file: str
    name: str


class Edge(NamedTuple):
    """One function calls another in a process; `caller` is None for an event loop or a thread."""

    process: str
    caller: Function | None
    callee: Function


@dataclass(frozen=True, slots=True)
class Recording:
    """A window of time. `began` and `answered` are in `time.monotonic_ns`, 0 without a request."""

    number: int
    began: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a function, or the resumption of a coroutine. `at` is in `time.monotonic_ns`."""

    recording: int
    at: int
    edge: Edge
    resumed: bool
    thread: str


# The lines of a function that ran in a recording, by recording and function.
Lines: TypeAlias = dict[tuple[int, Function], set[int]]


@dataclass(frozen=True, slots=True)
class Trace:
    """The events of all processes in order of time, and the lines that ran."""

    events: list[Event]
    lines: Lines


def read(folder: Path) -> Trace:
    """Returns what the files `PROCESS.PID.events` of a folder hold."""
    events: list[Event] = []
    lines: Lines = defaultdict(set)
    for path in sorted(folder.glob("*.events")):
        with path.open(encoding="utf-8") as file:
            events += parse(file, path.name.split(".")[0], lines)
    return Trace(sorted(events, key=lambda event: event.at), dict(lines))


def parse(texts: Iterable[str], process: str, lines: Lines) -> list[Event]:
    """Returns the calls among one process' lines of text; adds the lines that ran to `lines`."""
    events = []
    for text in texts:
        kind, recording, *rest = text.rstrip("\n").split("\t")
        if kind == "line":
            number, file, name = rest
            lines[int(recording), Function(file, name)].add(int(number))
        else:
            at, file, name, caller_file, caller_name, thread = rest
            caller = Function(caller_file, caller_name) if caller_file else None
            edge = Edge(process, caller, Function(file, name))
            events.append(Event(int(recording), int(at), edge, kind == "resume", thread))
    return events
