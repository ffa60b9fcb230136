"""Log lines are JSON with the call's ids, and a traceback shows no variable's value."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime

import pytest

from services.chassis import logs

PROGRAM = """
from services.chassis import context, logs
levels = logs.LogLevels("info")
log = logs.configure("router", "r1", levels=levels, style=STYLE)
traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
call = context.CallContext(method="/x", request_id="req-1", traceparent=traceparent)
context.bind(call)
def fail(token):
    raise RuntimeError("it broke")
try:
    fail("hunter2-canary")
except RuntimeError:
    log.exception("failed", code=7)
log.debug("not shown")
"""

SWITCHED = """
import logging
from services.chassis import logs
levels = logs.LogLevels("info")
log = logs.configure("router", "r1", levels=levels, style="json")
bound = log.bind(part="x")
log.info("one"), log.debug("hidden")
levels.switch(logging.DEBUG, True), levels.switch(logging.INFO, False)
bound.debug("two"), bound.info("hidden"), bound.log(logging.INFO, "hidden"), bound.warning("three")
assert log.is_enabled_for(logging.DEBUG) and not log.is_enabled_for(logging.INFO)
levels.switch(logging.ERROR, False), levels.switch(logging.WARNING, False)
log.error("hidden"), log.exception("hidden"), logging.getLogger("library").error("hidden")
log.critical("four")
levels.switch(logging.WARNING, True)
logging.getLogger("library").warning("forwarded")
"""


def lines_of(style: str, program: str = PROGRAM) -> str:
    program = program.replace("STYLE", repr(style))
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr


def test_a_line_is_json_and_carries_the_ids_of_its_call() -> None:
    (line,) = lines_of("json").splitlines()

    event = json.loads(line)
    assert (event["event"], event["code"], event["service"]) == ("failed", 7, "router")
    assert (event["request_id"], event["trace_id"]) == ("req-1", "a" * 32)
    assert event["exception"][0]["exc_type"] == "RuntimeError"


def test_no_variable_is_shown_in_either_style() -> None:
    for style in ("json", "console"):
        shown = lines_of(style)
        assert "it broke" in shown
        assert "hunter2" not in shown.replace('fail("hunter2-canary")', "")


def test_each_level_can_be_switched_while_the_process_runs() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SWITCHED], capture_output=True, text=True, check=True
    ).stderr

    assert [json.loads(line)["event"] for line in said.splitlines()] == [
        "one",
        "two",
        "three",
        "four",
        "library",
    ]


def test_a_line_that_is_written_later_keeps_its_moment_and_its_call() -> None:
    program = (
        "from services.chassis import context, logs\n"
        "log = logs.configure('router', 'r1', levels=logs.LogLevels('info'), style='json')\n"
        "call = context.CallContext(method='/x', request_id='then')\n"
        "context.bind(context.CallContext(method='/x', request_id='now'))\n"
        "log.info('late', **logs.moment(call, 1700000000.25)), log.info('now')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    late, now = (json.loads(line) for line in done.stderr.splitlines())

    assert (late["timestamp"], late["request_id"]) == ("2023-11-14T22:13:20.250000Z", "then")
    assert now["request_id"] == "now"
    assert abs(datetime.fromisoformat(now["timestamp"]).timestamp() - time.time()) < 60


TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("calls", "fields"),
    [
        ([], {}),
        ([("a", "")], {"request_id": "a"}),
        ([("a", TRACEPARENT)], {"request_id": "a", "trace_id": TRACE}),
        ([("a", TRACEPARENT), ("b", "")], {"request_ids": ["a", "b"], "trace_ids": [TRACE]}),
    ],
)
def test_a_line_is_joined_to_one_call_or_to_several(
    calls: list[tuple[str, str]], fields: dict[str, object]
) -> None:
    assert logs.ids_of(calls) == fields


TOGETHER = """
import logging
from services.chassis import logs
levels = logs.LogLevels("info")
log = logs.configure("gateway", "g1", levels=levels, style=STYLE).bind(part="door")
names = ("text", "even")
lines = [
    (("é", n % 2 == 0), {"number": n, "at": None, **logs.moment(None, 1.5 + n)}) for n in range(3)
]
log.write_all(logging.DEBUG, "hidden", names, lines)
for values, fields in lines:
    log.info("http", **dict(zip(names, values)), **fields)
log.write_all(logging.INFO, "http", names, lines)
log.write_all(logging.INFO, "http", names, [])
"""


@pytest.mark.parametrize("style", ["json", "console"])
def test_lines_written_together_are_those_written_one_by_one(style: str) -> None:
    lines = lines_of(style, TOGETHER).splitlines()

    assert len(lines) == 6
    read = [json.loads(line) for line in lines] if style == "json" else lines
    assert read[:3] == read[3:]
