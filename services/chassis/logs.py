"""Structured logs: events are constants, data are fields, the call adds request and trace ids."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
import structlog

from services.chassis import context

# Without the frames' local variables: they hold tokens and payloads.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# The methods that write a line; services use no others.
_METHODS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
# A line's values of names that the lines have in common, and the fields of its own.
Line = tuple[tuple[object, ...], dict[str, Any]]
# Where the trace id stands in a traceparent: after a version of two digits and a dash
# (https://www.w3.org/TR/trace-context/).
_TRACE_ID = slice(3, 35)


class LogLevels:
    """The levels of a process's log that are written.

    Each can be switched while the process runs; critical is always written.
    """

    def __init__(self, level: str) -> None:
        """Begins with `level` and all above it."""
        self._on = {number: number >= _LEVELS[level] for number in _LEVELS.values()}

    def writes(self, level: int) -> bool:
        """Returns whether lines of this level, a number of `logging`, are written."""
        return self._on.get(level // 10 * 10, level >= logging.CRITICAL)

    def switch(self, level: int, on: bool) -> None:
        """Switches lines of this level on or off."""
        self._on[level] = on


def _write_all(
    self: Any, level: int, event: str, names: Sequence[str], lines: Iterable[Line]
) -> None:
    """Writes lines in one write, as `log` would write them; no processor is asked for each.

    Each has the values of `names`, of which few combinations are expected, and fields of its own,
    which include its timestamp. Does nothing if the level is not written.
    """
    if not self.is_enabled_for(level):
        return
    config = structlog.get_config()
    renderer = config["processors"][-1]
    if not isinstance(renderer, _JsonLines):
        for values, fields in lines:
            self.log(level, event, **dict(zip(names, values, strict=True)), **fields)
        return
    first = structlog.get_context(self)
    last = {"event": event, **renderer.process, "level": logging.getLevelName(level).lower()}
    # What lines share is rendered once.
    beginnings: dict[Sequence[object], bytes] = {}
    written = []
    for values, fields in lines:
        beginning = beginnings.get(values)
        if beginning is None:
            shared = {**first, **dict(zip(names, values, strict=True)), **last}
            beginning = beginnings[values] = _dumps(shared)[:-1] + b","
        written.append(beginning + _dumps(fields)[1:])
    if written:
        config["logger_factory"]().msg(b"\n".join(written))


def _switchable(levels: LogLevels) -> type[Any]:
    """Returns a class of loggers that ask `levels` before each line, and write many at once."""
    base = structlog.make_filtering_bound_logger(logging.DEBUG)

    def gated(write: Any, level: int) -> Any:
        def method(self: Any, event: str, *args: Any, **fields: Any) -> Any:
            return write(self, event, *args, **fields) if levels.writes(level) else None

        return method

    def log(self: Any, level: int, event: str, *args: Any, **fields: Any) -> Any:
        return base.log(self, level, event, *args, **fields) if levels.writes(level) else None

    methods: dict[str, Any] = {
        name: gated(getattr(base, name), level) for name, level in _METHODS.items()
    }
    methods |= {
        "log": log,
        "write_all": _write_all,
        "is_enabled_for": lambda self, level: levels.writes(level),
    }
    return type("SwitchableLogger", (base,), methods)


def moment(call: context.CallContext | None, at: float) -> dict[str, str]:
    """Returns the fields of a line that is written later than it happened: `at`, and its call."""
    fields = {"timestamp": _iso(at)}
    if call is not None:
        fields["request_id"] = call.request_id
        if call.traceparent:
            fields["trace_id"] = call.traceparent[_TRACE_ID]
    return fields


def ids_of(calls: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the fields that join one line to several calls, given by request id and traceparent.

    One call gives `request_id` and `trace_id`, several give the lists `request_ids` and
    `trace_ids`. Ids that no call has are left out.
    """
    fields: dict[str, Any] = {}
    request_ids = [request_id for request_id, _ in calls if request_id]
    trace_ids = [traceparent[_TRACE_ID] for _, traceparent in calls if traceparent]
    for name, ids in (("request_id", request_ids), ("trace_id", trace_ids)):
        if ids:
            fields |= {name: ids[0]} if len(calls) == 1 else {f"{name}s": ids}
    return fields


def write_for(
    log: Any, level: int, event: str, calls: Iterable[tuple[str, str]], **fields: object
) -> None:
    """Writes one line for several calls, given as for `ids_of`, if the level is written.

    Otherwise `calls` are not looked at: the ids of a frame of calls cost more than the question.
    """
    if log.is_enabled_for(level):
        log.log(level, event, **fields, **ids_of([*calls]))


class _JsonLines(structlog.processors.JSONRenderer):
    """Renders lines as JSON; knows the fields that name the process."""

    def __init__(self, process: dict[str, str]) -> None:
        super().__init__(serializer=_dumps)
        self.process = process


def _iso(at: float) -> str:
    """Returns a Unix time in UTC, ISO 8601 with microseconds."""
    whole = int(at)
    return f"{_second(whole)}.{int((at - whole) * 1e6):06d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _add_moment(
    _logger: Any, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if "timestamp" not in event:
        event.update({**moment(context.current(), time.time()), **event})
    return event


def _dumps(event: structlog.typing.EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def configure(
    service: str, instance: str, *, levels: LogLevels, style: str
) -> structlog.typing.FilteringBoundLogger:
    """Sets up the logging of the process; returns its logger.

    Warnings of libraries are written in the same form.
    """

    def add_process(
        _logger: Any, _name: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        event.setdefault("instance", instance)
        return event

    shared: list[Any] = [
        add_process,
        structlog.processors.add_log_level,
        _add_moment,
    ]
    json = style == "json"
    ending: list[Any] = (
        [_TRACEBACKS, _JsonLines({"service": service, "instance": instance})]
        if json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=shared + ending,
        wrapper_class=_switchable(levels),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer)
        if json
        else structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    _capture_standard_logging(logger)
    return logger


def _capture_standard_logging(logger: structlog.typing.FilteringBoundLogger) -> None:
    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.log(record.levelno, "library", logger=record.name, message=record.getMessage())

    logging.basicConfig(handlers=[Forward()], level=logging.WARNING, force=True)
    # The broker's adapter itself reports trouble with connections.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
