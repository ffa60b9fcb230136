"""Acknowledgements of one channel, gathered: one frame speaks for all that were given within a turn
of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Acks:
    """Tags in the consumer's hands. `send(tag, multiple)` puts an acknowledgement on the wire."""

    def __init__(self, send: Callable[[int, bool], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        # In the order in which they came, which is the order of the tags.
        self._held: dict[int, None] = {}
        self._acknowledged: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, tag: int) -> None:
        """A delivery that is to be settled."""
        self._held[tag] = None

    def release(self, tag: int) -> None:
        """A delivery that was settled otherwise."""
        self._held.pop(tag, None)

    def acknowledge(self, tag: int) -> None:
        """Sent by the end of the next turn, or with `flush`."""
        if not self._acknowledged:
            self._loop.call_soon(self.flush)
        self._acknowledged.add(tag)

    def flush(self) -> None:
        """Sends what has gathered: one frame for all from the oldest on that are done, one for each
        that overtook.
        """
        done, self._acknowledged = self._acknowledged, set()
        if not done:
            return
        oldest = last = 0
        for tag in self._held:
            if tag not in done:
                break
            oldest, last = oldest or tag, tag
        if last:
            self._send(last, last != oldest)
        for tag in sorted(done):
            if tag > last:
                self._send(tag, False)
            del self._held[tag]
