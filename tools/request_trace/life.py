"""The life of a request: which calls are the request's own, and what its reader opens. Pure.

The request's own calls. The platform is never idle: it reports, polls, expires and flushes. So the
same number of equal windows of time is recorded with exactly one request and with none, in turn.
A call, which is a caller and a callee in a process, is the request's own on two conditions: each
recording with a request has it, and these have it half a time more often on average than others.
A callback of a timer is never the request's own: it flushes and expires for all requests together.
What else follows the answer belongs to the life, such as the runtime's acknowledgement.

The measure. A reader follows the request in order of time, across processes, and reads each
function once, where the request reaches it first. A function in its caller's file is read on the
spot. Any other takes the reader to another file, which is opened the first time; later times are
returns. A function that an event loop or a thread calls has no caller: it always takes the reader
to another file. A coroutine that waits since before the request is read where it is resumed, if a
line of it runs; other resumptions count nothing. A comprehension is part of its function.

Two other measures were tried on commit c5f97df, where this one gives 76 files and 90 returns.
Counting each call to another file once gives 107 returns: a reader turns back to what is read.
Counting each pair of files once gives 45: a reader turns back once for many functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tools.request_trace.events import Edge, Event, Function, Recording, Trace

# Calls a recording: half of what one request makes at least, as far from 0 as from 1.
_EXCESS = 0.5


class Turn(Enum):
    """What a function does to its reader; the value is the mark in the table."""

    STAY = " "
    OPEN = "+"
    RETURN = "<"


@dataclass(frozen=True, slots=True)
class Step:
    """A function where the request reaches it first, `at` nanoseconds after the request began."""

    at: int
    event: Event
    turn: Turn
    # Whether the caller has its answer already.
    after: bool

    @property
    def function(self) -> Function:
        """The function that is read."""
        return self.event.edge.callee


@dataclass(frozen=True, slots=True)
class Count:
    """What a reader of the request does."""

    files: int
    returns: int
    functions: int


def own_edges(events: Iterable[Event], busy: Collection[int], idle: Collection[int]) -> set[Edge]:
    """Returns the request's own calls; `busy` recordings have a request, `idle` ones have none."""
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


def steps(trace: Trace, own: Collection[Edge], window: Recording) -> list[Step]:
    """Returns what a reader reads of one recording."""
    read: set[Function] = set()
    opened: set[str] = set()
    found = []
    for event in trace.events:
        function = event.edge.callee
        if event.recording != window.number or event.edge not in own or function in read:
            continue
        # A coroutine that only awaits the one that goes on runs no line.
        if event.resumed and (window.number, function) not in trace.lines:
            continue
        turn = _turn(event.edge, opened)
        read.add(function)
        opened.add(function.file)
        found.append(Step(event.at - window.began, event, turn, event.at > window.answered))
    return found


def _turn(edge: Edge, opened: Collection[str]) -> Turn:
    if edge.callee.file not in opened:
        return Turn.OPEN
    if edge.caller is not None and edge.caller.file == edge.callee.file:
        return Turn.STAY
    return Turn.RETURN


def count(life: Iterable[Step]) -> Count:
    """Counts files that are opened, returns, and functions."""
    turns = Counter(step.turn for step in life)
    return Count(turns[Turn.OPEN], turns[Turn.RETURN], turns.total())


def median_of(lives: Sequence[list[Step]]) -> list[Step]:
    """Returns the life in the middle by returns, then by files."""
    ranked = sorted(lives, key=lambda life: (count(life).returns, count(life).files))
    return ranked[(len(ranked) - 1) // 2]
