"""A logger that keeps its lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.chassis.logs import Line


class FakeLog:
    """Lines as (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        # The events that were logged as errors.
        self.errors: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    debug = warning = info

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append(event)
        self.info(event, **fields)

    exception = error

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Keeps the line whatever its level."""
        self.info(event, **fields)

    def write_all(
        self, level: int, event: str, names: Sequence[str], lines: Iterable[Line]
    ) -> None:
        """Keeps each line."""
        for values, fields in lines:
            self.info(event, **dict(zip(names, values, strict=True)), **fields)

    def bind(self) -> FakeLog:
        """Nothing is bound."""
        return self

    def is_enabled_for(self, level: int) -> bool:
        """Every line is kept."""
        return True

    def events(self) -> list[str]:
        """The events alone."""
        return [event for event, _ in self.lines]
