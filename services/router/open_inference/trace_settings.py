"""The protocol's trace settings, as far as the router has them: which of its calls become spans.

Spans go to the collector that the router was started with, so there is no file and no flush. A call
that is not chosen passes its caller's trace on unchanged. Settings that are read can be written
back unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from services.chassis.telemetry import Sampling, Tracing
from stellwerk.wire.errors import InvalidInput, NotReady

_OFF, _TIMESTAMPS = "OFF", "TIMESTAMPS"
_WHOLE = re.compile(r"[0-9]{1,18}")
_NO_LIMIT = "-1"
# Settings that the protocol knows and that the router cannot change.
_FIXED: dict[str, Sequence[str]] = {
    "trace_mode": ["opentelemetry"],
    "trace_file": [""],
    "log_frequency": ["0"],
}


def read(tracing: Tracing) -> dict[str, Sequence[str]]:
    """Returns the settings by name."""
    sampling = tracing.sampling
    return {
        "trace_level": [_TIMESTAMPS if tracing.exports and sampling.on else _OFF],
        "trace_rate": [str(sampling.every)],
        "trace_count": [str(sampling.left) if sampling.left is not None else _NO_LIMIT],
        **_FIXED,
    }


def change(tracing: Tracing, given: Mapping[str, Sequence[str]]) -> None:
    """Changes the given settings, all or none; a setting without values returns to its value at
    start.

    Raises InvalidInput for a setting that does not exist or cannot have this value, NotReady
    without a collector.
    """
    sampling, initial = tracing.sampling, Sampling()
    for name, values in given.items():
        if name in _CHANGES:
            sampling = (
                _CHANGES[name](sampling, values) if values else _reset(name, sampling, initial)
            )
        elif name not in _FIXED:
            known = ", ".join([*_CHANGES, *_FIXED])
            raise InvalidInput(
                f"there is no trace setting '{name[:64]}'; there are {known}", setting=name[:64]
            )
        elif values and list(values) != list(_FIXED[name]):
            raise InvalidInput(
                f"{name} cannot be changed: spans go to the collector that the router was started"
                " with",
                setting=name,
            )
    asked = list(given.get("trace_level", ()))
    if asked and sampling.on and not tracing.exports:
        raise NotReady(
            "there is no collector to trace to; start the router with STELLWERK_OTEL_ENDPOINT"
        )
    tracing.sampling = sampling


def _reset(name: str, sampling: Sampling, initial: Sampling) -> Sampling:
    field = _FIELDS[name]
    return replace(sampling, **{field: getattr(initial, field)})


def _level(sampling: Sampling, values: Sequence[str]) -> Sampling:
    if not set(values) <= {_OFF, _TIMESTAMPS} or len(values) != 1:
        raise InvalidInput(
            f"trace_level is {_OFF} or {_TIMESTAMPS}: spans hold times and no tensors",
            setting="trace_level",
        )
    return replace(sampling, on=values[0] == _TIMESTAMPS)


def _rate(sampling: Sampling, values: Sequence[str]) -> Sampling:
    rate = _whole("trace_rate", values)
    if not rate:
        raise InvalidInput(
            "trace_rate is a whole number N from 1: one of N calls is traced",
            setting="trace_rate",
        )
    return replace(sampling, every=rate)


def _count(sampling: Sampling, values: Sequence[str]) -> Sampling:
    return replace(
        sampling, left=None if list(values) == [_NO_LIMIT] else _whole("trace_count", values)
    )


def _whole(name: str, values: Sequence[str]) -> int:
    if len(values) != 1 or not _WHOLE.fullmatch(values[0]):
        raise InvalidInput(f"{name} is one whole number", setting=name)
    return int(values[0])


_CHANGES: dict[str, Callable[[Sampling, Sequence[str]], Sampling]] = {
    "trace_level": _level,
    "trace_rate": _rate,
    "trace_count": _count,
}
_FIELDS = {"trace_level": "on", "trace_rate": "every", "trace_count": "left"}
