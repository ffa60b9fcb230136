"""A trace for people: the table of a life, hints for who wants to shorten it; and for programs: JSON."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from tools.request_trace.events import Edge, Function, Trace
from tools.request_trace.life import Count, Step, Turn, count

WHAT = {"infer": "one REST prediction", "upload": "one upload"}
_WIDTH = 100
LEGEND = (
    "+ opens the file, < turns back to it; a < before a function is another turn to the same file.\n"
    "Times are under the recorder, which makes the platform several times slower."
)


@dataclass(frozen=True, slots=True)
class Traced:
    """Everything that is known of one kind of request."""

    kind: str
    trace: Trace
    # The recording that is shown, what is read in it, and the counts of all recordings.
    recording: int
    life: list[Step]
    counts: list[Count]
    # Calls that only some requests make.
    rare: set[Edge]

    @property
    def count(self) -> Count:
        """What a reader does, in the recording that is shown."""
        return count(self.life)

    def lines(self, function: Function) -> int:
        """How many lines of the function ran."""
        return len(self.trace.lines.get((self.recording, function), ()))


def table(traced: Traced) -> str:
    """The life by process: number, mark, file and functions of each step."""
    lines, number = [LEGEND], 0
    for after, part in groupby(traced.life, key=lambda step: step.after):
        if after:
            lines.append("\nthe caller has its answer; what follows is not counted")
        for process, group in groupby(part, key=lambda step: step.event.edge.process):
            steps = list(group)
            lines.append(f"\n{process}, {steps[0].at / 1e6:.1f} ms")
            for _, row in groupby(steps, key=lambda step: step.function.file):
                number += 1
                lines += _row(number, list(row))
    return "\n".join(lines)


def _row(number: int, steps: Sequence[Step]) -> list[str]:
    """Functions of one file that are read one after the other; long lines are broken."""
    names = [
        (step.turn.value if index and step.turn is not Turn.STAY else "") + step.function.name
        for index, step in enumerate(steps)
    ]
    margin = " " * 12
    text = textwrap.fill(", ".join(names), _WIDTH, initial_indent=margin, subsequent_indent=margin)
    return [f"{number:4} {steps[0].turn.value} {steps[0].function.file}", text]


def summary(traced: Traced) -> str:
    """One sentence with the numbers, and how much they vary."""
    counts = traced.counts
    return (
        f"A reader of {WHAT[traced.kind]} opens {traced.count.files} files and turns back "
        f"{traced.count.returns} times ({traced.count.functions} functions; in {len(counts)} recordings "
        f"{_range([one.files for one in counts])} files and {_range([one.returns for one in counts])} returns)."
    )


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def hints(traced: Traced) -> str:
    """Files that are opened for one function, and the files that the reader turns back to most often."""
    life = [step for step in traced.life if not step.after]
    by_file: dict[str, list[Step]] = defaultdict(list)
    for step in life:
        by_file[step.function.file].append(step)
    single = [steps[0] for steps in by_file.values() if len(steps) == 1]
    lines = ["", f"{len(single)} files are opened for one function (lines that ran, function, caller's file):"]
    for step in sorted(single, key=lambda step: traced.lines(step.function)):
        ran, caller = traced.lines(step.function), step.event.edge.caller
        lines.append(f"{ran:4}  {step.function.file} {step.function.name}  <- {_file(caller)}")
    back = Counter(step.function.file for step in life if step.turn is Turn.RETURN)
    lines += ["", "Returns by file that the reader turns back to, and from where:"]
    for file, times in back.most_common():
        callers = Counter(
            _file(step.event.edge.caller) for step in by_file[file] if step.turn is Turn.RETURN
        )
        whence = ", ".join(f"{caller} {number}" for caller, number in callers.most_common())
        lines.append(f"{times:4}  {file}  <- {whence}")
    return "\n".join(lines)


def _file(caller: Function | None) -> str:
    return caller.file if caller is not None else "an event loop"


def document(traced: Traced) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "kind": traced.kind,
        "summary": summary(traced),
        "count": asdict(traced.count),
        "recordings": [asdict(one) for one in traced.counts],
        "files": list(dict.fromkeys(step.function.file for step in traced.life if not step.after)),
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
