"""Keeps signing keys and revocations fresh in the background, and makes sure that there is an
administrator.

No failure ends the process: it becomes a sentence in the readiness, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.controlplane.identity.bootstrap import Bootstrap, KeyFileError
from services.controlplane.identity.token_issuer import TokenIssuer
from stellwerk.wire.errors import NotReady, ServiceError

# Seconds after which this control plane has read what another one changed. Services fetch the trust
# bundle every 5 s, so a revocation reaches them within 7 s.
REFRESH_SECONDS = 2.0
# Seconds between attempts while the database is away.
_RETRY_SECONDS = 0.5


class KeyRefresher:
    """Reads signing keys and revocations anew every REFRESH_SECONDS, and makes sure once that there
    is an administrator. `problem` says what prevents the latter, "" if nothing does.
    """

    def __init__(
        self,
        prepared: Callable[[], Awaitable[object]],
        tokens: TokenIssuer,
        bootstrap: Bootstrap,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._prepared = prepared
        self._tokens = tokens
        self._bootstrap = bootstrap
        self._log = log
        self._administered = False
        self.problem = "it is not known yet whether there is an administrator"

    async def run(self) -> None:
        """Refreshes until cancelled, from when the database is prepared; logs each new failure."""
        await self._prepared()
        logged = ""
        while True:
            failure = await self._refresh()
            if failure and failure != logged:
                self._log.warning("key_refresh_failed", problem=failure)
            logged = failure
            await asyncio.sleep(_RETRY_SECONDS if failure else REFRESH_SECONDS)

    async def _refresh(self) -> str:
        """Refreshes once; returns what went wrong, "" if nothing did."""
        try:
            await self._tokens.refresh()
            await self._ensure_administrator()
        except ServiceError as exc:
            return exc.message
        return self.problem

    async def _ensure_administrator(self) -> None:
        if self._administered:
            return
        try:
            made = await self._bootstrap.run()
        except (KeyFileError, NotReady) as exc:
            self.problem = str(exc)
            return
        self._administered = True
        self.problem = ""
        if made:
            self._log.info("administrator_key_made", path=str(self._bootstrap.path))
