"""What commands print: tables for people, JSON for programs. Results go to stdout, everything else
to stderr.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from stellwerk.client.errors import ServiceError
    from stellwerk.client.session.plan import Progress

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def when(message: Any, field: str) -> str:
    """A timestamp field in local time; "" if it is not set."""
    if not message.HasField(field):
        return ""
    moment = getattr(message, field).ToDatetime().replace(microsecond=0)
    from datetime import UTC

    return str(moment.replace(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"))


def pairs(values: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(dict(values).items()))


def as_json(value: Any) -> Any:
    """A message, or a list or dict of these, as plain data; names as in the .proto files."""
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
    """One command's output."""

    def __init__(self, json_wanted: bool) -> None:
        self.json_wanted = json_wanted

    def show(self, value: Any, for_people: Callable[[], None]) -> None:
        """The value as JSON, or whatever `for_people` prints."""
        if self.json_wanted:
            sys.stdout.write(json.dumps(as_json(value), ensure_ascii=False) + "\n")
        else:
            for_people()

    def table(
        self, value: Any, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str
    ) -> None:
        """The value as JSON, or these rows, or the sentence for none."""
        self.show(value, lambda: self._print_table(columns, rows) if rows else self.line(empty))

    def facts(self, value: Any, facts: Sequence[tuple[str, object]]) -> None:
        """The value as JSON, or one line for each fact that is not empty."""
        self.show(
            value,
            lambda: self._print_table(
                ("", ""), [fact for fact in facts if fact[1] not in ("", None)]
            ),
        )

    def line(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """For people only."""
        if not self.json_wanted:
            sys.stderr.write(text + "\n")

    def error(self, error: ServiceError) -> None:
        if self.json_wanted:
            described = {
                "reason": error.reason,
                "message": error.message,
                "metadata": error.metadata,
            }
            sys.stderr.write(json.dumps({"error": described}, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"error: {error.message}\n")

    @contextlib.contextmanager
    def transfer(self, title: str) -> Iterator[Progress | None]:
        """A progress bar for one transfer, on a terminal only."""
        if self.json_wanted or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _print_table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=any(columns), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(cell).replace("[", "\\[") for cell in row))
        # Piped into another program, a table is as wide as its content.
        console = Console(width=None if sys.stdout.isatty() else 400)
        with console.capture() as capture:
            console.print(table)
        sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")
