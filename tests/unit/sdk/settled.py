"""Lets one test drive blocking and asynchronous clients."""

from __future__ import annotations

import inspect
from typing import Any


async def settled(result: Any) -> Any:
    """The result of a blocking operation as it is, of an asynchronous one when it is done."""
    return await result if inspect.isawaitable(result) else result
