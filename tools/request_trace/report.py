"""A trace for people, as a table with hints how to shorten the life, and for programs, as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from tools.request_trace.events import Edge, Function, Trace
from tools.request_trace.life import Count, Step, Turn, count

WHAT = {"infer": "one REST prediction", "upload": "one upload"}
_WIDTH = 100
LEGEND = (
    "+ opens the file, < turns back to it; a < before a function is another turn to its file.\n"
    "Times are under the recorder, which makes the platform several times slower."
)


@dataclass(frozen=True, slots=True)
class Traced:
    """Everything that is known of one kind of request."""

    kind: str
    trace: Trace
    # The request's own calls, and calls that only some requests make.
    own: set[Edge]
    rare: set[Edge]
    # What is read in the recording that is shown, and the counts of all recordings.
    life: list[Step]
    counts: list[Count]

    @property
    def count(self) -> Count:
        """What a reader does, in the recording that is shown."""
        return count(self.life)

    @property
    def recording(self) -> int:
        """The number of the recording that is shown."""
        return self.life[0].event.recording

    @property
    def visits(self) -> list[Function]:
        """All entries and resumptions in order of time."""
        return [
            event.edge.callee
            for event in self.trace.events
            if event.recording == self.recording and event.edge in self.own
        ]

    def lines(self, function: Function) -> int:
        """Returns how many lines of the function ran."""
        return len(self.trace.lines.get((self.recording, function), ()))


def table(traced: Traced) -> str:
    """Returns the life by process: number, mark, file and functions of each step."""
    lines, number = [LEGEND], 0
    for after, part in groupby(traced.life, key=lambda step: step.after):
        if after:
            lines.append("\nthe caller has its answer")
        for process, group in groupby(part, key=lambda step: step.event.edge.process):
            steps = list(group)
            lines.append(f"\n{process}, {steps[0].at / 1e6:.1f} ms")
            for _, row in groupby(steps, key=lambda step: step.function.file):
                number += 1
                lines += _row(number, list(row))
    return "\n".join(lines)


def _row(number: int, steps: Sequence[Step]) -> list[str]:
    """Returns the lines for functions of one file that are read one after the other."""
    names = [
        (step.turn.value if index and step.turn is not Turn.STAY else "") + step.function.name
        for index, step in enumerate(steps)
    ]
    margin = " " * 12
    text = textwrap.fill(", ".join(names), _WIDTH, initial_indent=margin, subsequent_indent=margin)
    return [f"{number:4} {steps[0].turn.value} {steps[0].function.file}", text]


def summary(traced: Traced) -> str:
    """Returns one sentence with the numbers, and how much they vary."""
    shown, counts = traced.count, traced.counts
    files = _range([one.files for one in counts])
    returns = _range([one.returns for one in counts])
    return (
        f"A reader of {WHAT[traced.kind]} opens {shown.files} files and turns back {shown.returns} "
        f"times ({shown.functions} functions; in {len(counts)} recordings {files} files and "
        f"{returns} returns)."
    )


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def hints(traced: Traced) -> str:
    """Returns which files are opened for one function, and to which the reader turns back."""
    by_file: dict[str, list[Step]] = defaultdict(list)
    for step in traced.life:
        by_file[step.function.file].append(step)
    single = [steps[0] for steps in by_file.values() if len(steps) == 1]
    lines = [
        "",
        f"{len(single)} files are opened for one function; lines that ran, and its caller:",
    ]
    for step in sorted(single, key=lambda step: traced.lines(step.function)):
        ran, caller = traced.lines(step.function), _file(step.event.edge.caller)
        lines.append(f"{ran:4}  {step.function.file} {step.function.name}  <- {caller}")
    return "\n".join(
        [*lines, "", "Files that the reader turns back to, and from where:", *_back(by_file)]
    )


def _back(by_file: Mapping[str, Sequence[Step]]) -> list[str]:
    callers = {
        file: Counter(_file(step.event.edge.caller) for step in steps if step.turn is Turn.RETURN)
        for file, steps in by_file.items()
    }
    lines = []
    for file, times in sorted(callers.items(), key=lambda item: -item[1].total()):
        if times:
            whence = ", ".join(f"{caller} {number}" for caller, number in times.most_common())
            lines.append(f"{times.total():4}  {file}  <- {whence}")
    return lines


def _file(caller: Function | None) -> str:
    return caller.file if caller is not None else "an event loop"


def document(traced: Traced) -> dict[str, Any]:
    """Returns everything, for JSON."""
    return {
        "kind": traced.kind,
        "summary": summary(traced),
        "count": asdict(traced.count),
        "recordings": [asdict(one) for one in traced.counts],
        "files": list(dict.fromkeys(step.function.file for step in traced.life)),
        "steps": [_step(traced, step) for step in traced.life],
        "calls_of_some_requests": [_edge(edge) for edge in sorted(traced.rare, key=str)],
    }


def _step(traced: Traced, step: Step) -> dict[str, Any]:
    return {
        "milliseconds": round(step.at / 1e6, 3),
        **_edge(step.event.edge),
        "thread": step.event.thread,
        "turn": step.turn.name.lower(),
        "resumed": step.event.resumed,
        "after_the_answer": step.after,
        "lines": traced.lines(step.function),
    }


def _edge(edge: Edge) -> dict[str, Any]:
    caller = edge.caller._asdict() if edge.caller is not None else None
    return {"process": edge.process, **edge.callee._asdict(), "caller": caller}
