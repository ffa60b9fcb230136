"""The protocol's log settings: which levels the router writes. They can be switched while it runs,
and last until it ends.

Settings that are read can be written back unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from services.chassis.logs import LogLevels
from stellwerk.wire.errors import InvalidInput

Value = bool | int | str
_FLAGS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_VERBOSE, _FILE, _FORMAT = "log_verbose_level", "log_file", "log_format"
_MAX_VERBOSE = (1 << 32) - 1


class LogSettings:
    """The settings of one process."""

    def __init__(self, levels: LogLevels, style: str) -> None:
        """Takes the form of lines, `style`, as fixed."""
        self._levels = levels
        # Any level above 0 means the same; the number is kept for callers that read it back.
        self._verbose = int(levels.writes(logging.DEBUG))
        self._fixed: dict[str, Value] = {_FILE: "", _FORMAT: style}
        self._initial = self.read()

    def read(self) -> dict[str, Value]:
        """Returns the settings by name."""
        flags: dict[str, Value] = {
            name: self._levels.writes(level) for name, level in _FLAGS.items()
        }
        return {
            _FILE: self._fixed[_FILE],
            **flags,
            _VERBOSE: self._verbose,
            _FORMAT: self._fixed[_FORMAT],
        }

    def change(self, given: Mapping[str, Value | None]) -> None:
        """Changes the given settings, all or none; None returns a setting to its value at start.

        Raises InvalidInput for a setting that does not exist or cannot have this value.
        """
        wanted = {name: self._checked(name, value) for name, value in given.items()}
        for name, value in wanted.items():
            if name in _FLAGS:
                self._levels.switch(_FLAGS[name], bool(value))
            elif name == _VERBOSE:
                self._verbose = int(value)
                self._levels.switch(logging.DEBUG, self._verbose > 0)

    def _checked(self, name: str, value: Value | None) -> Value:
        if name not in self._initial:
            raise InvalidInput(
                f"there is no log setting '{name[:64]}'; there are {', '.join(self._initial)}",
                setting=name[:64],
            )
        if value is None:
            return self._initial[name]
        if name in self._fixed and value != self._fixed[name]:
            raise InvalidInput(
                f"{name} cannot be changed while the router runs: it writes to its standard error, "
                "in the form that STELLWERK_LOG_FORMAT names",
                setting=name,
            )
        if name in _FLAGS and not isinstance(value, bool):
            raise InvalidInput(f"{name} is true or false", setting=name)
        if name == _VERBOSE and (isinstance(value, bool | str) or not 0 <= value <= _MAX_VERBOSE):
            raise InvalidInput(f"{name} is a whole number from 0", setting=name)
        return value
