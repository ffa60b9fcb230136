"""The `stellwerk` command. Commands stand in a file per noun; what takes long to import is imported
when it is used.
"""

from __future__ import annotations

from stellwerk.client.cli.root import app


def main() -> None:
    """The entry point: exit code 0, 1 for an error (told in one sentence), 2 for a usage that is
    none.
    """
    app(prog_name="stellwerk")


__all__ = ["app", "main"]
