"""What belongs to a request, what its reader opens, and what the page about it says."""

from __future__ import annotations

import pytest

from tools.request_trace import events, life, page
from tools.request_trace.events import Edge, Event, Function, Recording, Trace
from tools.request_trace.life import Count, Turn

DOOR, SEND = Function("a/door.py", "Door.__call__"), Function("a/calls.py", "Calls.send")
CHECK, PUT = Function("a/door.py", "Door._check"), Function("a/calls.py", "Calls.put")
POLL = Function("a/poll.py", "poll")
WINDOW = Recording(2, began=100, answered=200)


def call(
    caller: Function | None,
    callee: Function,
    at: int = 0,
    recording: int = 2,
    resumed: bool = False,
) -> Event:
    return Event(recording, at, Edge("gateway", caller, callee), resumed, "MainThread")


def trace(*made: Event, idle_lines: tuple[Function, ...] = ()) -> Trace:
    lines = {(2, event.edge.callee): {1} for event in made if event.edge.callee not in idle_lines}
    return Trace(list(made), lines)


def turns(*made: Event) -> list[tuple[str, Turn]]:
    own = {event.edge for event in made}
    steps = life.steps(trace(*made), own, WINDOW)
    return [(step.function.name, step.turn) for step in steps]


def test_the_recorders_text_is_read() -> None:
    lines: events.Lines = events.defaultdict(set)
    texts = [
        "call\t2\t17\ta/door.py\tDoor.__call__\t\t\tMainThread\n",
        "line\t2\t5\ta/door.py\tDoor.__call__\n",
        "resume\t2\t18\ta/calls.py\tCalls.send\ta/door.py\tDoor.__call__\tslot-1\n",
    ]

    found = events.parse(texts, "gateway", lines)

    assert found == [
        Event(2, 17, Edge("gateway", None, DOOR), False, "MainThread"),
        Event(2, 18, Edge("gateway", DOOR, SEND), True, "slot-1"),
    ]
    assert lines == {(2, DOOR): {5}}


def test_a_call_in_each_request_is_its_own_and_background_work_is_not() -> None:
    made = [call(None, DOOR, recording=number) for number in (2, 4, 6)]
    made += [call(None, POLL, recording=number) for number in (1, 2, 3, 4, 5, 6)]
    made += [call(DOOR, SEND, recording=4)]

    own = life.own_edges(made, busy=[2, 4, 6], idle=[1, 3, 5])

    assert own == {Edge("gateway", None, DOOR)}
    assert life.rare_edges(made, [2, 4, 6], own) == {Edge("gateway", DOOR, SEND)}


def test_a_call_that_the_platform_makes_too_is_the_requests_if_it_is_made_more_often() -> None:
    made = [call(None, DOOR, recording=number) for number in (1, 2, 2, 3, 4, 4)]

    assert life.own_edges(made, busy=[2, 4], idle=[1, 3]) == {Edge("gateway", None, DOOR)}


def test_a_file_is_opened_once_and_a_function_read_once() -> None:
    assert turns(
        call(None, DOOR),
        call(DOOR, CHECK),
        call(DOOR, SEND),
        call(SEND, CHECK),
        call(CHECK, PUT),
        call(DOOR, PUT),
    ) == [
        ("Door.__call__", Turn.OPEN),
        ("Door._check", Turn.STAY),
        ("Calls.send", Turn.OPEN),
        ("Calls.put", Turn.RETURN),
    ]


def test_what_an_event_loop_calls_in_a_known_file_is_a_return() -> None:
    assert turns(call(None, DOOR), call(None, CHECK))[1] == ("Door._check", Turn.RETURN)


def test_a_step_says_whether_the_caller_has_its_answer() -> None:
    made = [call(None, DOOR, at=150), call(None, PUT, at=250)]

    steps = life.steps(trace(*made), {one.edge for one in made}, WINDOW)

    assert [(step.at, step.after) for step in steps] == [(50, False), (150, True)]


def test_a_coroutine_is_read_where_it_is_resumed_unless_it_only_awaits() -> None:
    made = [call(None, DOOR, resumed=True), call(DOOR, SEND, resumed=True)]

    steps = life.steps(trace(*made, idle_lines=(DOOR,)), {one.edge for one in made}, WINDOW)

    assert [step.function for step in steps] == [SEND]


def test_other_recordings_are_not_read() -> None:
    made = [call(None, DOOR, recording=4), call(None, SEND)]

    steps = life.steps(trace(*made), {one.edge for one in made}, WINDOW)

    assert [step.function for step in steps] == [SEND]


def test_the_life_in_the_middle_is_shown() -> None:
    short, long = [call(None, DOOR)], [call(None, DOOR), call(None, CHECK)]
    lives = [
        life.steps(trace(*made), {one.edge for one in made}, WINDOW) for made in (long, short, long)
    ]

    assert life.count(life.median_of(lives)) == Count(files=1, returns=1, functions=2)


PAGE = """# The life of a request

Read `a/other.py` `first` elsewhere.

## 1. The door

`a/door.py` `Door.__call__` asks who calls; `a/door.py`: `Door._check()` then `Door.end`.
Its `nonsense` is no function.

```python
`a/code.py`
```

## 2. The way

- `a/calls.py` (`Calls.send`) sends.

## What else

`a/else.py`
"""


def test_a_pages_steps_name_files_and_the_functions_right_behind_them() -> None:
    first, second = page.parse(PAGE)

    assert first.number == 1
    assert first.files == ["a/door.py", "a/door.py"]
    assert first.functions == [DOOR, CHECK, Function("a/door.py", "Door.end")]
    assert (second.number, second.files, second.functions) == (2, ["a/calls.py"], [SEND])


@pytest.mark.parametrize(
    "text",
    [
        "3. **Send** `a/calls.py` `Calls.send`\n   and more\n4. `a/door.py`\n",
        "| step | where |\n|---|---|\n| 3 | `a/calls.py` `Calls.send` |\n| 4 | `a/door.py` |\n",
        "### 3 · Send\n`a/calls.py` `Calls.send`\n### 4 · Door\n`a/door.py`\n",
    ],
    ids=["list", "table", "headings"],
)
def test_steps_are_headings_list_items_or_rows(text: str) -> None:
    steps = page.parse(text)

    assert [(step.number, step.files) for step in steps] == [
        (3, ["a/calls.py"]),
        (4, ["a/door.py"]),
    ]
    assert steps[0].functions == [SEND]


def problems(text: str, *visits: Function) -> list[str]:
    return page.problems(page.parse(text), visits)


def test_a_function_may_come_again_in_a_later_step() -> None:
    text = "1. `a/door.py` `Door.__call__`\n2. `a/calls.py` `Calls.send`\n"
    text += "3. `a/door.py` `Door.__call__`\n"

    assert problems(text, DOOR, SEND, DOOR) == []


def test_a_page_that_tells_the_trace_has_no_problems() -> None:
    text = "1. `a/door.py` `Door.__call__`\n2. `a/calls.py` `Calls.send`\n3. `a/door.py`\n"

    assert problems(text, DOOR, SEND, DOOR) == []


def test_a_function_in_a_function_needs_no_mark() -> None:
    inner = Function("a/door.py", "Door.run.<locals>.done")

    assert problems("1. `a/door.py` `Door.run.done`\n", inner) == []
    assert problems("1. `a/door.py` `Door.run.<locals>.done`\n", inner) == []


def test_what_the_trace_does_not_enter_is_a_problem() -> None:
    text = "1. `a/door.py` `Door.open`\n2. `a/new.py` `new`\n3. Nothing.\n"

    assert problems(text, DOOR) == [
        "step 1: the request does not enter Door.open of a/door.py; "
        "of that file it enters Door.__call__",
        "step 2: the request enters no function of a/new.py",
        "step 3 names no file",
    ]


def test_steps_in_another_order_than_the_trace_are_a_problem() -> None:
    text = "1. `a/calls.py` `Calls.send`\n2. `a/door.py` `Door.__call__`\n"
    text += "3. `a/calls.py` `Calls.put`\n"

    assert problems(text, DOOR, SEND, PUT) == [
        "step 2 comes too late: the request enters Door.__call__ of a/door.py for the last time "
        "before Calls.send of a/calls.py, with which step 1 begins"
    ]


def test_a_page_has_one_to_twelve_steps() -> None:
    assert "has no steps" in problems("# Nothing\n", DOOR)[0]
    assert problems("".join(f"{n}. `a/door.py`\n" for n in range(1, 14)), DOOR) == [
        "the page has 13 steps, at most 12"
    ]
