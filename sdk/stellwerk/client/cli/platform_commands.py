"""`stellwerk up` and `stellwerk local …`, which the package stellwerk-platform adds.

The platform names a function for each in the entry-point group `stellwerk.commands`; it takes the
words after the command. Without the platform each command says how to install it.
"""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path

import click

GROUP = "stellwerk.commands"
_INSTALL = "pip install stellwerk-platform"


class PlatformCommand(click.Command):
    """A command whose words and options belong to the platform."""

    def __init__(self, name: str, help: str) -> None:
        words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
        super().__init__(
            name,
            params=[words],
            callback=lambda words: _run(name, list(words)),
            help=help,
            add_help_option=False,
            context_settings={"ignore_unknown_options": True},
        )

    def get_short_help_str(self, limit: int = 45) -> str:
        """Returns the line for `stellwerk --help`, with what to install where that is missing."""
        found = _entry(str(self.name)) is not None
        return str(self.help) if found else f"{self.help} First: {_INSTALL}"


def _entry(name: str) -> metadata.EntryPoint | None:
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)


def _run(name: str, words: list[str]) -> None:
    entry = _entry(name)
    if entry is None:
        raise click.ClickException(
            f"`stellwerk {name}` runs the platform, which is not installed here: {_INSTALL}"
        )
    try:
        command = entry.load()
    except ImportError:
        hidden_by = _namesake(entry)
        if hidden_by is None:
            raise
        raise click.ClickException(
            f"the package `{hidden_by.name}` at {hidden_by} hides the platform's; take"
            f" {hidden_by.parent} off PYTHONPATH, or start elsewhere"
        ) from None
    command(words)


def _namesake(entry: metadata.EntryPoint) -> Path | None:
    """Returns the folder of another package of the name of the platform's, None if there is none.

    A package of the same name that stands earlier on the path is imported in its place.
    """
    package, *inner = entry.module.split(".")
    found = util.find_spec(package)
    if found is None:
        return None
    if not found.submodule_search_locations:
        return Path(found.origin).with_suffix("") if found.origin else None
    folders = [Path(location) for location in found.submodule_search_locations]
    ours = any(folder.joinpath(*inner).with_suffix(".py").exists() for folder in folders)
    return None if ours else folders[0]


up = PlatformCommand("up", "Run the whole platform on this machine.")
local = PlatformCommand("local", "Prepare this machine to run the platform.")
