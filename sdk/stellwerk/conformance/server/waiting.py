"""Waits for numbers and states that a server changes a moment after its answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from stellwerk.conformance.expect import Mismatch

# Seconds: a server may count after it has answered, and load in the background.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def eventually(look: Callable[[], None], seconds: float = _PATIENCE_SECONDS) -> None:
    """Calls `look` until it raises no Mismatch; after `seconds` raises its last one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except Mismatch:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
