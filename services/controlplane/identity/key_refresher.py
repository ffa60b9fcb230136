"""What goes on in the background: the database is prepared once it answers, then keys and
revocations are kept fresh.

Nothing here ends the process. What cannot be done now is a sentence in the readiness, and is tried
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.controlplane.identity.bootstrap import Bootstrap, FileProblem
from services.controlplane.identity.tokens import Tokens
from stellwerk.wire.errors import NotReady, ServiceError

# How soon this control plane follows what another one has changed.
REFRESH_SECONDS = 2.0
_RETRY_SECONDS = 0.5


def in_turn(*steps: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The steps as one."""

    async def run() -> None:
        for step in steps:
            await step()

    return run


class Upkeep:
    """Refreshes the tokens' keys for ever and sees to it that there is an administrator."""

    def __init__(
        self,
        prepared: Callable[[], Awaitable[object]],
        tokens: Tokens,
        bootstrap: Bootstrap,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._prepared, self._tokens, self._bootstrap, self._log = prepared, tokens, bootstrap, log
        self._administered = False
        self.problem = "it is not known yet whether there is an administrator"

    async def run(self) -> None:
        await self._prepared()
        logged = ""
        while True:
            failure = await self._once()
            if failure and failure != logged:
                self._log.warning("upkeep_failed", problem=failure)
            logged = failure
            await asyncio.sleep(_RETRY_SECONDS if failure else REFRESH_SECONDS)

    async def _once(self) -> str:
        """One round; what went wrong, "" if nothing did."""
        try:
            await self._tokens.refresh()
            await self._see_to_administrator()
        except ServiceError as exc:
            return exc.message
        return self.problem

    async def _see_to_administrator(self) -> None:
        if self._administered:
            return
        try:
            made = await self._bootstrap.run()
        except (FileProblem, NotReady) as exc:
            self.problem = str(exc)
            return
        self._administered, self.problem = True, ""
        if made:
            self._log.info("administrator_key_made", path=str(self._bootstrap.path))
