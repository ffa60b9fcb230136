"""Waiting for what a server counts or does a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable

from stellwerk.conformance.expect import Mismatch

# A server may count after it has answered, and load in the background.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def eventually(look: Callable[[], None], seconds: float = _PATIENCE_SECONDS) -> None:
    """Looks again until `look` raises no Mismatch; raises its last one when patience runs out."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except Mismatch:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
