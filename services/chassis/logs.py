"""Structured logs: the event is a constant, data are fields; request and trace ids are bound by the call's context."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

from services.chassis import context

# Without the frames' local variables: they hold tokens and payloads.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def _add_call(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    call = context.current()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        if call.traceparent:
            event.setdefault("trace_id", call.traceparent.split("-")[1])
    return event


def _dumps(event: structlog.typing.EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def configure(service: str, instance: str, *, level: str, style: str) -> structlog.typing.FilteringBoundLogger:
    """Sets the process's logging up and returns its logger. Other libraries' warnings come out in the same form."""

    def add_process(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        event.setdefault("instance", instance)
        return event

    shared: list[Any] = [
        add_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_call,
    ]
    json = style == "json"
    ending: list[Any] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_dumps)]
        if json
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=shared + ending,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
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
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # connection trouble is reported by the broker adapter itself
