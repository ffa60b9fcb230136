"""The life of a request: which calls are the request's own, and what its reader opens. Pure.

The request's own calls. The platform is never idle: it reports, polls, expires and flushes. So the
same number of equal windows of time is recorded with exactly one request and with none, in turn.
A call, which is a caller and a callee in a process, is the request's own if each recording with a
request has it, and if these have it on average at least half a time more often than the others.
A timer of the platform fires in few of the short windows, or in as many of both sorts.
What happens after the caller has its answer is shown, and not counted.

The measure. A reader follows the request in order of time, across processes, and reads each
function once, where the request reaches it first. A function in its caller's file is read on the
spot. Any other takes the reader to another file: the reader opens the file if it is new, and
otherwise turns back to it. A function that an event loop or a thread calls has no caller, so it
always takes the reader to another file. A coroutine that waits since before the request is read
where it is resumed; other resumptions count nothing. A comprehension is part of its function.

Two other measures were tried. Counting each distinct call to another file, instead of each
function once, gives about a fifth more returns: the reader would turn back to what is read.
Counting each pair of files once gives half as many: the reader would turn once for many functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tools.request_trace.events import Edge, Event, Function

# Of a call that each request makes once, half is lost at most to the platform's own calls.
_EXCESS = 0.5


class Turn(Enum):
    """What a function does to its reader; the value is the mark in the table."""

    STAY = " "
    OPEN = "+"
    RETURN = "<"


@dataclass(frozen=True, slots=True)
class Step:
    """A function where the request reaches it first. `at` is in nanoseconds since the request was sent."""

    at: int
    event: Event
    turn: Turn
    # Whether the caller already has its answer.
    after: bool

    @property
    def function(self) -> Function:
        """The function that is read."""
        return self.event.edge.callee


@dataclass(frozen=True, slots=True)
class Count:
    """What a reader of the request does until the caller has its answer."""

    files: int
    returns: int
    functions: int


def own_edges(events: Iterable[Event], busy: Collection[int], idle: Collection[int]) -> set[Edge]:
    """Returns the request's own calls. `busy` are the recordings with a request, `idle` those without."""
    counts: Counter[tuple[int, Edge]] = Counter((event.recording, event.edge) for event in events)
    found = set()
    for edge in {edge for _, edge in counts}:
        asked = [counts[number, edge] for number in busy]
        excess = sum(asked) / len(busy) - sum(counts[number, edge] for number in idle) / len(idle)
        if min(asked) > 0 and excess >= _EXCESS:
            found.add(edge)
    return found


def rare_edges(events: Iterable[Event], busy: Collection[int], own: Collection[Edge]) -> set[Edge]:
    """Returns calls that only recordings with a request have, and not all of them."""
    with_request = {event.edge for event in events if event.recording in busy}
    without = {event.edge for event in events if event.recording not in busy}
    return with_request - without - set(own)


def steps(events: Iterable[Event], own: Collection[Edge], began: int, answered: int) -> list[Step]:
    """Returns what a reader reads, from the events of one recording in order of time."""
    read: set[Function] = set()
    opened: set[str] = set()
    found = []
    for event in events:
        function = event.edge.callee
        if event.edge in own and function not in read:
            turn = _turn(event.edge, opened)
            read.add(function)
            opened.add(function.file)
            found.append(Step(event.at - began, event, turn, event.at > answered))
    return found


def _turn(edge: Edge, opened: Collection[str]) -> Turn:
    if edge.callee.file not in opened:
        return Turn.OPEN
    if edge.caller is not None and edge.caller.file == edge.callee.file:
        return Turn.STAY
    return Turn.RETURN


def count(life: Iterable[Step]) -> Count:
    """Counts the steps until the caller has its answer."""
    turns = Counter(step.turn for step in life if not step.after)
    return Count(turns[Turn.OPEN], turns[Turn.RETURN], turns.total())


def median_of(lives: Sequence[list[Step]]) -> list[Step]:
    """Returns the life in the middle by returns, then by files."""
    ranked = sorted(lives, key=lambda life: (count(life).returns, count(life).files))
    return ranked[(len(ranked) - 1) // 2]
