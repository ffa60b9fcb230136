"""Brings model versions up and down as the router asks: each serving key is LOADING until its model
is in memory and its queue consumed, then READY or FAILED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.chassis import background
from services.chassis.broker.port import Consumer
from services.runtime.models.cache import ModelCache
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import Internal, ServiceError, Unavailable

State = router_pb2.ServedModel.State
# Seconds before each retry while a peer is unavailable. A restarted peer is back within seconds, so
# its callers wait rather than fail.
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


class VersionSource(Protocol):
    """The part of Repository that is used here."""

    async def version(self, name: str) -> repository_pb2.ModelVersion: ...


class QueueConsumer(Protocol):
    """The part of WorkConsumer that is used here."""

    async def open(self, key: str, version: repository_pb2.ModelVersion) -> Consumer: ...


@dataclass(slots=True)
class _Served:
    key: str
    model_version: str
    state: State = router_pb2.ServedModel.STATE_LOADING
    memory_bytes: int = 0
    error: ServiceError | None = None
    consumer: Consumer | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class ServingTable:
    """The serving keys of one runtime and their states. Calls `changed` after every change."""

    def __init__(
        self,
        versions: VersionSource,
        check: Callable[[repository_pb2.ModelVersion], Awaitable[None]],
        cache: ModelCache,
        consumer: QueueConsumer,
        *,
        changed: Callable[[], None],
        log: Any,
        stopped: Callable[[str], None] = lambda model_version: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Takes a `check` that raises if this runtime cannot load a version, and calls `stopped`
        with the name of a version that no key serves any more.
        """
        self._versions = versions
        self._check = check
        self._cache = cache
        self._consumer = consumer
        self._changed = changed
        self._log = log
        self._stopped = stopped
        self._sleep = sleep
        self._served: dict[str, _Served] = {}
        self._draining = False

    @property
    def draining(self) -> bool:
        """True once the runtime takes no new work."""
        return self._draining

    def models(self) -> list[router_pb2.ServedModel]:
        """Returns the table as the router gets it."""
        return [_describe(entry) for entry in self._served.values()]

    def serve(self, key: str, model_version: str) -> None:
        """Starts to serve the version; a key that is served stays, one that failed is retried."""
        entry = self._served.get(key)
        if self._draining or (
            entry is not None and entry.state != router_pb2.ServedModel.STATE_FAILED
        ):
            # The router asked because it does not know, so report again.
            self._changed()
            return
        entry = _Served(key, model_version)
        self._served[key] = entry
        entry.task = asyncio.create_task(self._bring_up(entry))
        self._changed()

    async def stop(self, key: str) -> None:
        """Stops to consume the key's queue. Answers requests in hand before the model is freed."""
        entry = self._served.pop(key, None)
        if entry is None:
            return
        await self._take_down(entry)
        if all(other.model_version != entry.model_version for other in self._served.values()):
            self._cache.discard(entry.model_version)
            self._stopped(entry.model_version)
        self._log.info("serving_stopped", key=key)
        self._changed()

    async def drain(self) -> None:
        """Stops to consume all queues; requests in hand are still answered."""
        self._draining = True
        self._changed()
        await asyncio.gather(*(self._take_down(entry) for entry in self._served.values()))

    async def _take_down(self, entry: _Served) -> None:
        if entry.task is not None:
            await background.end(entry.task)
        if entry.consumer is not None:
            consumer, entry.consumer = entry.consumer, None
            try:
                await consumer.cancel()
            except ServiceError as exc:
                # The broker is gone, and with it the deliveries that this would have stopped.
                self._log.info("consumer_gone", key=entry.key, reason=exc.reason)

    async def _bring_up(self, entry: _Served) -> None:
        try:
            await self._bring_up_with_patience(entry)
        except ServiceError as exc:
            entry.error = exc
        except Exception as exc:
            self._log.exception("serving_failed", key=entry.key)
            entry.error = Internal(f"the runtime could not serve the model: {type(exc).__name__}")
        failed = entry.error is not None
        entry.state = (
            router_pb2.ServedModel.STATE_FAILED if failed else router_pb2.ServedModel.STATE_READY
        )
        outcome = entry.error.reason if entry.error is not None else "ok"
        self._log.info(
            "serving_started", key=entry.key, outcome=outcome, memory_bytes=entry.memory_bytes
        )
        self._changed()

    async def _bring_up_with_patience(self, entry: _Served) -> None:
        for pause in (*_RETRY_SECONDS, None):
            try:
                version = await self._versions.version(entry.model_version)
                await self._check(version)
                self._cache.want(version.name)
                async with self._cache.lease(version) as resident:
                    entry.memory_bytes = resident.memory_bytes
                entry.consumer = await self._consumer.open(entry.key, version)
                return
            except Unavailable as exc:
                if pause is None:
                    raise
                self._log.info(
                    "serving_delayed", key=entry.key, reason=exc.reason, retry_in_seconds=pause
                )
                await self._sleep(pause)


def _describe(entry: _Served) -> router_pb2.ServedModel:
    model = router_pb2.ServedModel(
        key=entry.key,
        model_version=entry.model_version,
        state=entry.state,
        memory_bytes=entry.memory_bytes,
    )
    if entry.error is not None:
        model.error_reason = entry.error.reason
        model.error = entry.error.message
        model.error_code = entry.error.code.value[0]
    return model
