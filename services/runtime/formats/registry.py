"""Finds the formats that this process can load. A plug-in that does not work is left out; the
runtime serves all other formats.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from services.runtime.formats.port import FormatSettings, ModelFormat
from stellwerk.wire.errors import RequirementUnmet, UnsafeFormat

GROUP = "stellwerk.model_formats"


class Log(Protocol):
    """The part of a logger that is used here."""

    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...


class Formats:
    """The formats of this process by name, and the rule which of them may be used."""

    def __init__(self, formats: Iterable[ModelFormat], *, allow_unsafe: bool) -> None:
        self._formats = {item.name: item for item in formats}
        self._allow_unsafe = allow_unsafe

    @property
    def usable(self) -> list[ModelFormat]:
        """The formats that this runtime loads, ordered by name."""
        return [
            self._formats[name]
            for name in sorted(self._formats)
            if self._may_use(self._formats[name])
        ]

    def find(self, name: str) -> ModelFormat:
        """Returns the format with this name.

        Raises RequirementUnmet if this process lacks it, UnsafeFormat if it runs code and the
        operator does not allow that.
        """
        found = self._formats.get(name)
        if found is None:
            raise RequirementUnmet(
                f"this runtime cannot load the format '{name[:64]}'", format=name[:64]
            )
        if not self._may_use(found):
            raise UnsafeFormat(
                f"the format '{name}' runs code that the artifact carries; this runtime was not"
                " started to allow that",
                format=name,
            )
        return found

    def _may_use(self, item: ModelFormat) -> bool:
        return self._allow_unsafe or not item.runs_code


def load_formats(settings: FormatSettings, *, allow_unsafe: bool, log: Log) -> Formats:
    """Constructs every format of the entry-point group, in the order of their entry points' names.

    Imports plug-ins of other people, so it may take seconds: keep it off the event loop.
    """
    found: dict[str, ModelFormat] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        item = _construct(entry, settings, log)
        if item is None:
            continue
        if item.name in found:
            log.warning("format_broken", format=entry.name, error="its name is taken")
            continue
        found[item.name] = item
    return Formats(found.values(), allow_unsafe=allow_unsafe)


def _construct(entry: EntryPoint, settings: FormatSettings, log: Log) -> ModelFormat | None:
    try:
        item: ModelFormat = entry.load()(settings)
    except ImportError as exc:
        log.info(
            "format_left_out", format=entry.name, missing=getattr(exc, "name", None) or str(exc)
        )
        return None
    except Exception as exc:
        # A plug-in of another author must not keep the runtime from serving the other formats.
        log.warning("format_broken", format=entry.name, error=f"{type(exc).__name__}: {exc}")
        return None
    return item
