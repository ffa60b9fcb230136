"""Withholds a module from the import system for a while: for libraries that import another one
merely to look at it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


class _Finder(MetaPathFinder):
    def __init__(self, withheld: str) -> None:
        self._withheld = withheld

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        """No other finder is asked for the withheld module; all others are left to them."""
        if fullname == self._withheld:
            raise ModuleNotFoundError(f"{fullname} is not imported now", name=fullname)
        return None


@contextmanager
def withheld(module: str) -> Iterator[None]:
    """While this is open, importing `module` fails as if it were not installed, unless it was
    imported before.
    """
    finder = _Finder(module)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
