"""Decides when a started platform is ready, and keeps an administrator's token fresh while it
runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from services.local.data_directory import DataDirectory
from services.local.errors import StartFailed
from services.local.processes.health import Health
from services.local.processes.logs import Logs
from services.local.processes.supervised import Supervised
from services.local.secrets import write

# A token lives a day and is renewed every hour, so that the file's token is good for 23 hours.
TOKEN_LIFETIME = 24 * 3600
TOKEN_RENEWAL = 3600.0


class StartupChecks:
    """Asks the processes what is missing until the platform can serve its first call."""

    def __init__(
        self, processes: Sequence[Supervised], directory: DataDirectory, health: Health
    ) -> None:
        self._processes = processes
        self._directory = directory
        self._health = health

    async def missing(self) -> dict[str, str]:
        """Returns what is missing by the process that misses it; empty when the platform is ready.

        Writes the token file. Raises StartFailed if a process cannot use its settings, or if the
        database knows another administrator.
        """
        for process in self._processes:
            if process.refusal:
                raise StartFailed(f"{process.name} cannot start: {process.refusal}")
        waiting = await self._health.problems(
            {process.name: process.planned.address for process in self._processes}
        )
        if waiting:
            return waiting
        try:
            token = await self._fetch_token()
        except grpc.aio.AioRpcError as exc:
            if exc.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise StartFailed(
                    "this database knows another administrator's key than"
                    f" {self._directory.secrets.admin_key}; put the right one there, or start once"
                    " with STELLWERK_NEW_ADMIN_KEY=true to make the new one good"
                ) from None
            return {"controlplane": f"gives no token ({exc.code().name})"}
        try:
            attached = await self._health.attached_runtimes(self._address("router"), token)
        except grpc.aio.AioRpcError as exc:
            return {"router": f"does not list its runtimes ({exc.code().name})"}
        if not attached:
            return {"runtime": "has not attached to the router"}
        write(self._directory.token, token)
        # Last, with no await after it: a process may have ended since it answered, and a program
        # that took its port may have answered in its place.
        return {
            process.name: f"does not listen on {process.planned.address}"
            for process in self._processes
            if not process.listens()
        }

    async def renew_token(self, logs: Logs) -> None:
        """Writes a fresh token every hour, for ever."""
        while True:
            await asyncio.sleep(TOKEN_RENEWAL)
            try:
                write(self._directory.token, await self._fetch_token())
            except (grpc.aio.AioRpcError, OSError) as exc:
                logs.say(
                    "token_not_renewed",
                    f"the administrator's token could not be renewed ({type(exc).__name__});"
                    " it is tried again in an hour",
                    level="warning",
                )

    async def _fetch_token(self) -> str:
        key = self._directory.secrets.admin_key.read_text().strip()
        return await self._health.issue_token(self._address("controlplane"), key, TOKEN_LIFETIME)

    def _address(self, name: str) -> str:
        return next(process.planned.address for process in self._processes if process.name == name)
