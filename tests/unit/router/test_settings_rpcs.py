"""Trace and log settings: what is read can be written back, nothing changes by halves, nonsense is
refused.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from services.chassis.context import CallContext
from services.chassis.logs import LogLevels
from services.chassis.telemetry import Sampling, Tracing
from services.router.open_inference import trace_settings
from services.router.open_inference.log_settings import LogSettings
from stellwerk.wire.errors import InvalidInput, NotReady


class Exporting(Tracing):
    """Tracing with a collector."""

    def __init__(self) -> None:
        super().__init__("router", "r1", "")

    @property
    def exports(self) -> bool:
        return True


def test_trace_settings_without_a_collector_are_off_and_stay_so() -> None:
    tracing = Tracing("router", "r1", "")

    assert trace_settings.read(tracing)["trace_level"] == ["OFF"]
    with pytest.raises(NotReady):
        trace_settings.change(tracing, {"trace_level": ["TIMESTAMPS"]})
    trace_settings.change(tracing, {"trace_level": ["OFF"], "trace_rate": ["7"]})
    assert trace_settings.read(tracing)["trace_rate"] == ["7"]


def test_trace_settings_that_were_read_can_be_written_back() -> None:
    for tracing in (Exporting(), Tracing("router", "r1", "")):
        before = trace_settings.read(tracing)

        trace_settings.change(tracing, before)

        assert trace_settings.read(tracing) == before


def test_trace_settings_act_and_return_to_what_they_were() -> None:
    tracing = Exporting()

    trace_settings.change(tracing, {"trace_rate": ["3"], "trace_count": ["2"]})

    assert [tracing.sampling.take() for _ in range(12)].count(True) == 2
    assert trace_settings.read(tracing)["trace_count"] == ["0"]
    trace_settings.change(tracing, {"trace_level": ["OFF"], "trace_rate": [], "trace_count": []})
    assert not tracing.sampling.take()
    trace_settings.change(tracing, {"trace_level": []})
    assert all(tracing.sampling.take() for _ in range(3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace_level": ["TENSORS"]},
        {"trace_level": ["OFF", "TIMESTAMPS"]},
        {"trace_rate": ["0"]},
        {"trace_rate": ["-1"]},
        {"trace_rate": ["1", "2"]},
        {"trace_count": ["many"]},
        {"trace_count": ["-2"]},
        {"trace_count": ["٣"]},
        {"trace_file": ["/tmp/trace.json"]},
        {"log_frequency": ["10"]},
        {"trace_mode": ["triton"]},
        {"nonsense": []},
    ],
)
def test_a_wrong_trace_setting_is_refused_and_changes_nothing(wrong: dict[str, list[str]]) -> None:
    tracing = Exporting()

    with pytest.raises(InvalidInput):
        trace_settings.change(tracing, {"trace_rate": ["9"], **wrong})

    assert tracing.sampling == Sampling()


def test_a_call_that_is_not_chosen_gets_no_span_and_keeps_its_callers_trace() -> None:
    tracing = Tracing("router", "r1", "http://127.0.0.1:1")
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    chosen, passed = (CallContext(method="/x", request_id="r", traceparent=given) for _ in range(2))
    assert trace_settings.read(tracing)["trace_level"] == ["TIMESTAMPS"]

    span = tracing.begin("/x", chosen)
    trace_settings.change(tracing, {"trace_level": ["OFF"]})

    assert span is not None
    assert chosen.traceparent != given
    assert tracing.begin("/x", passed) is None
    assert passed.traceparent == given
    tracing.close()


def test_log_settings_act_and_return_to_what_they_were() -> None:
    levels = LogLevels("info")
    settings = LogSettings(levels, "json")
    before = settings.read()

    settings.change({"log_info": False, "log_verbose_level": 3})

    assert [levels.writes(level) for level in (logging.DEBUG, logging.INFO, logging.ERROR)] == [
        True,
        False,
        True,
    ]
    assert settings.read()["log_verbose_level"] == 3
    settings.change({"log_info": None, "log_verbose_level": None})
    assert settings.read() == before
    assert not levels.writes(logging.DEBUG)


def test_log_settings_that_were_read_can_be_written_back() -> None:
    settings = LogSettings(LogLevels("warning"), "console")
    before = settings.read()

    settings.change(before)

    assert settings.read() == before
    assert (before["log_info"], before["log_warning"], before["log_format"]) == (
        False,
        True,
        "console",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_info", 1),
        ("log_error", "true"),
        ("log_verbose_level", -1),
        ("log_verbose_level", True),
        ("log_verbose_level", "2"),
        ("log_verbose_level", 1 << 32),
        ("log_file", "/tmp/router.log"),
        ("log_format", "ISO8601"),
        ("nonsense", True),
        ("nonsense", None),
    ],
)
def test_a_wrong_log_setting_is_refused_and_changes_nothing(name: str, value: Any) -> None:
    settings = LogSettings(LogLevels("info"), "json")
    before = settings.read()

    with pytest.raises(InvalidInput):
        settings.change({"log_warning": False, name: value})

    assert settings.read() == before
