"""The page `docs/life-of-a-request.md`, and whether it says what a trace shows. Pure.

A step of the page begins with its number: a heading `## 3. …`, a list item `3. …` at the line's
beginning, or a table row `| 3 | …`. It ends at the next step or heading. In a step, inline code
that ends with `.py` names a file, as a path below the repository. Inline code right behind a file
or behind another function of it, with no words between but `and` and `then`, names a function:
`services/router/calls/invocations.py` `Invocations.send`, `Invocations.end`.
Blocks of code are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tools.request_trace.events import Function

MOST_STEPS = 12
_START = re.compile(r"(?:#{1,6} +(\d+)\b|(\d+)[.)] |\| *(\d+) *\|)")
_CODE = re.compile(r"`([^`\n]+)`")
_NAME = re.compile(r"[A-Za-z_<][\w<>]*(?:\.[\w<>]+)*")
_BETWEEN = re.compile(r"[\s,;:()·→|–-]*(?:(?:and|then)[\s,;:()·→–-]*)?")


@dataclass(slots=True)
class PageStep:
    """A step of the page: files it names, and functions in the order in which it names them."""

    number: int
    files: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


def parse(text: str) -> list[PageStep]:
    """Returns the page's steps in its order."""
    found = []
    for number, body in _bodies(text):
        step = PageStep(number)
        file, end = "", 0
        for code in _CODE.finditer(body):
            name = code[1].removesuffix("()")
            if code[1].endswith(".py"):
                file = code[1]
                step.files.append(file)
            elif file and _NAME.fullmatch(name) and _BETWEEN.fullmatch(body[end : code.start()]):
                step.functions.append(Function(file, name))
            else:
                file = ""
            end = code.end()
        found.append(step)
    return found


def _bodies(text: str) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each step."""
    number, kept, fenced = None, "", False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            start = _START.match(line)
            if start or line.startswith("#"):
                if number is not None:
                    yield number, kept
                number, kept = (int(start[start.lastindex or 1]), "") if start else (None, "")
                line = line[start.end() :] if start else line
            kept += line
    if number is not None:
        yield number, kept


def problems(page: Sequence[PageStep], visits: Sequence[Function]) -> list[str]:
    """Returns what the page says and the trace does not show.

    `visits` are all entries and resumptions in order of time.
    """
    found = []
    if not page:
        found.append(
            "the page has no steps; a step begins with its number, as in `## 1. The gateway`"
        )
    if len(page) > MOST_STEPS:
        found.append(f"the page has {len(page)} steps, at most {MOST_STEPS}")
    plain = [Function(visit.file, plain_name(visit.name)) for visit in visits]
    for step in page:
        found += _unseen(step, plain)
    return [*found, *_disorder(page, plain)]


def plain_name(name: str) -> str:
    """Returns a qualified name without the mark of what is defined in a function."""
    return name.replace(".<locals>", "")


def _title(function: Function) -> str:
    return f"{function.name} of {function.file}"


def _named(function: Function) -> Function:
    return Function(function.file, plain_name(function.name))


def _unseen(step: PageStep, visits: Sequence[Function]) -> Iterator[str]:
    if not step.files:
        yield f"step {step.number} names no file"
    seen, files = set(visits), {visit.file for visit in visits}
    for file in dict.fromkeys(step.files):
        if file not in files:
            yield f"step {step.number}: the request enters no function of {file}"
    for function in step.functions:
        if function.file in files and _named(function) not in seen:
            others = ", ".join(
                dict.fromkeys(one.name for one in visits if one.file == function.file)
            )
            yield (
                f"step {step.number}: the request does not enter {_title(function)}; "
                f"of that file it enters {others}"
            )


def _disorder(page: Sequence[PageStep], visits: Sequence[Function]) -> Iterator[str]:
    """Looks for each step's first function behind the one of the step before."""
    at, before = 0, ""
    for step in page:
        known = [name for name in map(_named, step.functions) if name in set(visits)]
        if not known:
            continue
        first = known[0]
        try:
            at = visits.index(first, at)
        except ValueError:
            yield (
                f"step {step.number} comes too late: the request enters {_title(first)} "
                f"for the last time before {before}"
            )
            continue
        before = f"{_title(first)}, with which step {step.number} begins"
