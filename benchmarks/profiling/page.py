"""Writes the page that says where the time of a request goes, from a measured profile. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CHART_NAME = "where-the-time-goes.png"
KERNEL = "kernel (system calls)"
OTHERS = "others"
# Rows of a service below this share at every number of connections go into one row.
_SMALLEST_SHARE = 0.02
_TITLES = {
    "api_gateway": "Gateway",
    "router": "Router",
    "runtime": "Runtime",
    "rabbitmq": "RabbitMQ",
}
# The processes that a request passes, in its order; the rest is one row.
_ON_THE_WAY = ("api_gateway", "router", "rabbitmq", "runtime")

Level = Mapping[str, Any]


def page(profile: Mapping[str, Any]) -> str:
    """Returns the page as Markdown."""
    levels: Sequence[Level] = profile["levels"]
    lines = [
        "# Where the time of a request goes",
        "",
        f"{_summary(levels[-1])}",
        "",
        f"![CPU time by process and by room]({CHART_NAME})",
        "",
        *_method(profile),
        "",
        "## By process",
        "",
        *_processes(levels),
    ]
    for service in levels[0]["parts"]:
        lines += ["", f"## {_title(service)}", "", *_service(service, levels)]
    return "\n".join(lines) + "\n"


def _summary(level: Level) -> str:
    whole = sum(level["processes"].values())
    named = [
        f"{_title(name)} {level['processes'][name]:.1f} µs ({level['processes'][name] / whole:.0%})"
        for name in _ON_THE_WAY
        if name in level["processes"]
    ]
    return (
        f"At {level['connections']} connections a REST prediction takes {whole:.1f} µs of CPU time"
        f" over all processes: {', '.join(named)}."
    )


def _method(profile: Mapping[str, Any]) -> list[str]:
    facts, effort = profile["environment"], profile["effort"]
    local = " with local changes" if profile["dirty"] else ""
    return [
        f"Measured {profile['when'][:10]} at commit {profile['commit']}{local} on"
        f" {facts['cpu']}, {facts['cores']} cores, with the load generator on the same cores and a"
        f" load average of {facts['load_average'][0]} at the start."
        " `python -m benchmarks profile` wrote this page.",
        "",
        "- The request is one row of four floats for a logistic regression, with a bearer token,"
        " over HTTP/1.1, through gateway, router, RabbitMQ and runtime, at log level warning.",
        f"- CPU time is the median of {effort['rounds']} rounds of {effort['seconds']:g} s from"
        " `/proc`, with nothing attached. The kernel's part is the system time of the process.",
        f"- The rest of a service is split by {_samples(profile)} samples of its stacks (py-spy,"
        f" {effort['sampled']:g} s each, native frames included), thread by thread: a thread"
        " weighs what `/proc` says that it took. A sample counts for the innermost room or library;"
        " the interpreter, libc and numpy count for their caller.",
    ]


def _samples(profile: Mapping[str, Any]) -> str:
    counts = [count for level in profile["levels"] for count in level["samples"].values()]
    return f"{min(counts):,} to {max(counts):,}"


def _processes(levels: Sequence[Level]) -> list[str]:
    named = [name for name in _ON_THE_WAY if name in levels[0]["processes"]]
    lines = _head("CPU µs per request", levels)
    for name in named:
        lines.append(_row(_title(name), [level["processes"][name] for level in levels]))
    rest = [_sum_without(level["processes"], named) for level in levels]
    lines.append(_row("database, other services, supervisor", rest))
    whole = [sum(level["processes"].values()) for level in levels]
    lines.append(_row("**all**", whole, "**{:.1f}**"))
    lines.append(_row("load generator, apart", [level["generator"] for level in levels]))
    lines.append(_row("requests per second", [level["per_second"] for level in levels], "{:,.0f}"))
    lines.append(_row("median latency, ms", [level["p50_ms"] for level in levels], "{:.2f}"))
    return lines


def _service(service: str, levels: Sequence[Level]) -> list[str]:
    rows = service_rows(service, levels)
    lines = _head("CPU µs per request", levels)
    lines += [_row(name, values) for name, values in rows]
    whole = [level["processes"][service] for level in levels]
    return [*lines, _row("**all**", whole, "**{:.1f}**")]


def service_rows(service: str, levels: Sequence[Level]) -> list[tuple[str, list[float]]]:
    """Returns the parts of a service with their CPU µs at each level, the largest first.

    The order is that of the last level. Parts that are small everywhere are one row at the end.
    """
    names = {name for level in levels for name in level["parts"][service]}
    rows = {name: [level["parts"][service].get(name, 0.0) for level in levels] for name in names}
    rows[KERNEL] = [level["kernel"][service] for level in levels]
    wholes = [level["processes"][service] for level in levels]
    large = {
        name
        for name, values in rows.items()
        if any(v >= _SMALLEST_SHARE * whole for v, whole in zip(values, wholes, strict=True))
    }
    kept = sorted(large, key=lambda name: (-rows[name][-1], name))
    rest = [
        sum(values[at] for name, values in rows.items() if name not in large)
        for at in range(len(levels))
    ]
    others = [(OTHERS, rest)] if large != set(rows) else []
    return [(name, rows[name]) for name in kept] + others


def _sum_without(values: Mapping[str, float], named: Sequence[str]) -> float:
    return sum(value for name, value in values.items() if name not in named)


def _head(first: str, levels: Sequence[Level]) -> list[str]:
    columns = [_connections(level["connections"]) for level in levels]
    return [f"| {first} | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]


def _connections(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"


def _row(name: str, values: Sequence[float], spec: str = "{:.1f}") -> str:
    return f"| {name} | {' | '.join(spec.format(value) for value in values)} |"


def _title(process: str) -> str:
    return _TITLES.get(process, process)


def chart_data(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the chart draws: bars by process for each level, bars by part for the last."""
    levels: Sequence[Level] = profile["levels"]
    named = [name for name in _ON_THE_WAY if name in levels[0]["processes"]]
    last = levels[-1:]
    return {
        "levels": [
            {
                "title": _connections(level["connections"]),
                "bars": {
                    **{_title(name): level["processes"][name] for name in named},
                    OTHERS: _sum_without(level["processes"], named),
                },
            }
            for level in levels
        ],
        "services": [
            {
                "title": f"{_title(service)} at {_connections(levels[-1]['connections'])}",
                "bars": {name: values[0] for name, values in service_rows(service, last)},
            }
            for service in levels[-1]["parts"]
        ],
    }
