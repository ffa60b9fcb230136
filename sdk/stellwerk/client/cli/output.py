"""Prints results: tables for people, JSON for programs. Results go to stdout, everything else to
stderr.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from stellwerk.client.errors import ServiceError

# An argument of the SDK in one of its sentences, which the command has as an option. Other words
# that end in "=" stay, such as those of a query.
_ARGUMENT = re.compile(
    r"""(?<!\S)(format|token|unsafe|url|data_dir)=(?:True|"(\w+)")?(?=[,;.:]?(?:\s|$))"""
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """Returns a number of bytes with its unit, such as "1.5 MiB"."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def when(message: Any, field: str) -> str:
    """Returns a timestamp field in local time, "" if it is not set."""
    if not message.HasField(field):
        return ""
    moment = getattr(message, field).ToDatetime().replace(microsecond=0)
    return str(moment.replace(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"))


def pairs(values: Any) -> str:
    """Returns a mapping as "key=value" words in the order of the keys."""
    return " ".join(f"{key}={value}" for key, value in sorted(dict(values).items()))


def as_json(value: Any) -> Any:
    """Returns a message, or a list or dict of messages, as plain data with the field names of the
    .proto files.
    """
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if hasattr(value, "DESCRIPTOR"):
        from google.protobuf import json_format

        message: Message = value
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    return value.tolist() if hasattr(value, "tolist") else value


class Output:
    """Prints the results of one command."""

    def __init__(self, json_wanted: bool) -> None:
        self.json_wanted = json_wanted

    def show(self, value: Any, for_people: Callable[[], None]) -> None:
        """Prints the value as JSON, or calls `for_people`, which prints it."""
        if self.json_wanted:
            self.line(json.dumps(as_json(value), ensure_ascii=False))
        else:
            for_people()

    def table(
        self, value: Any, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str
    ) -> None:
        """Prints the value as JSON, or `rows` under `columns`, or `empty` if there is no row."""
        self.show(value, lambda: self.print_table(columns, rows) if rows else self.line(empty))

    def facts(self, value: Any, facts: Sequence[tuple[str, object]]) -> None:
        """Prints the value as JSON, or a line for each fact that is not empty."""
        told = [fact for fact in facts if fact[1] not in ("", None)]
        self.show(value, lambda: self.print_table((), told))

    def line(self, text: str) -> None:
        """Prints a line to stdout."""
        click.echo(text)

    def note(self, text: str) -> None:
        """Prints a line for people to stderr; nothing with `--json`."""
        if not self.json_wanted:
            click.echo(text, err=True)

    def error(self, error: ServiceError) -> None:
        """Prints an error to stderr: its sentence, or all of it with `--json`."""
        message = _ARGUMENT.sub(
            lambda found: f"--{found[1].replace('_', '-')} {found[2] or ''}".strip(), error.message
        )
        if self.json_wanted:
            error_as_json(error.reason, message, error.metadata, error.request_id)
        else:
            click.echo(f"error: {message}", err=True)

    @contextlib.contextmanager
    def transfer(self, title: str) -> Iterator[Callable[[int, int], None] | None]:
        """Shows a progress bar on stderr, if that is a terminal. Yields the function that is told
        the bytes done and the bytes in all.
        """
        if self.json_wanted or not sys.stderr.isatty():
            yield None
            return
        with click.progressbar(length=1, label=title, file=sys.stderr) as bar:

            def advance(done: int, total: int) -> None:
                bar.length = max(total, 1)
                bar.update(done - bar.pos)

            yield advance

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Prints rows in aligned columns, under a bold header on a terminal if there are names."""
        cells = [[str(cell) for cell in row] for row in ([columns] if columns else []) + [*rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for number, row in enumerate(cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text = "  ".join(padded).rstrip()
            self.line(click.style(text, bold=True) if columns and number == 0 else text)


def error_as_json(
    reason: str, message: str, metadata: Mapping[str, str] | None = None, request_id: str = ""
) -> None:
    """Prints an error to stderr as `--json` wants it."""
    described = {
        "reason": reason,
        "message": message,
        "metadata": dict(metadata or {}),
        "request_id": request_id,
    }
    click.echo(json.dumps({"error": described}, ensure_ascii=False), err=True)
