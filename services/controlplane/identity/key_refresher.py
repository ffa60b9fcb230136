"""Keeps signing keys and revocations fresh in the background, and makes sure that there is an
administrator.

No failure ends the process: it becomes a sentence in the readiness, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.chassis import background
from services.controlplane.identity.bootstrap import Bootstrap, KeyFileError
from services.controlplane.identity.token_issuer import TokenIssuer
from stellwerk.wire.errors import NotReady, ServiceError

# Seconds after which this control plane has read what another one changed. Services fetch the trust
# bundle every 5 s, so a revocation reaches them within 7 s.
REFRESH_SECONDS = 2.0
# Seconds until the first new attempt after a failure; later ones follow at REFRESH_SECONDS at most.
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
        await background.run_forever(
            self._refresh,
            self._failed,
            expected=(ServiceError, KeyFileError),
            first_seconds=_RETRY_SECONDS,
            longest_seconds=REFRESH_SECONDS,
        )

    async def _refresh(self, succeeded: Callable[[], None]) -> None:
        """Refreshes once and waits until the next time."""
        await self._tokens.refresh()
        await self._ensure_administrator()
        succeeded()
        await asyncio.sleep(REFRESH_SECONDS)

    def _failed(self, error: Exception, repeats: bool) -> None:
        if not repeats:
            self._log.warning("key_refresh_failed", problem=str(error))

    async def _ensure_administrator(self) -> None:
        if self._administered:
            return
        try:
            made = await self._bootstrap.run()
        except (KeyFileError, NotReady) as exc:
            self.problem = str(exc)
            raise
        self._administered = True
        self.problem = ""
        if made:
            self._log.info("administrator_key_made", path=str(self._bootstrap.path))
