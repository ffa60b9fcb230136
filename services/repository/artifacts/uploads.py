"""Uploads: from an opened ticket and a stream of bytes to a version, or to nothing at all.

Whatever ends a stream early (the client, its deadline, wrong bytes, this process draining) removes
what it wrote before the call returns; the sweeper does it for a process that could not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import structlog

from services.chassis import context
from services.chassis.context import Principal
from services.repository.artifacts.chunker import Intake
from services.repository.artifacts.streams import linger
from services.repository.artifacts.transfers import Transfers
from services.repository.artifacts.upload_sessions import (
    COMMITTED,
    LEASE_SECONDS,
    OPEN,
    Ticket,
    Tickets,
)
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.documents import model_key
from services.repository.catalogue.formats import UNSAFE_FORMATS, UNSAFE_PERMISSION
from services.repository.catalogue.specs import check_spec
from services.repository.catalogue.store import Store
from services.repository.config import RepositorySettings
from services.repository.metrics import Gauges
from services.repository.mongo import CHUNK_BYTES, Artifacts, ArtifactWriter, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import (
    DeadlinePassed,
    NotPermitted,
    Overloaded,
    ServiceError,
    UploadNotFound,
)
from stellwerk.wire.names import ModelName, parse_upload
from stellwerk.wire.permissions import permits

T = TypeVar("T")


class Uploads:
    """Opens uploads and receives them."""

    def __init__(
        self,
        settings: RepositorySettings,
        buckets: Buckets,
        store: Store,
        tickets: Tickets,
        artifacts: Artifacts,
        transfers: Transfers,
        gauges: Gauges,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings, self._buckets, self._store = settings, buckets, store
        self._tickets, self._artifacts, self._transfers = tickets, artifacts, transfers
        self._gauges, self._log = gauges, log
        # Commits and removals outlive the call that began them.
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def open(self, name: ModelName, given: pb.ModelVersion) -> tuple[str, datetime]:
        """Opens an upload; returns its resource name and when it lapses."""
        caller, limits = context.caller(), self._settings
        spec = check_spec(given, limits.max_artifact_bytes)
        _check_permitted(caller, name.bucket, spec.format)
        await self._buckets.get(name.bucket)
        if (
            await self._tickets.count_open(caller.name, limits.max_open_uploads)
            >= limits.max_open_uploads
        ):
            raise Overloaded(
                f"{limits.max_open_uploads} uploads of yours are open; finish one or let it lapse",
                limit=limits.max_open_uploads,
            )
        ticket = Ticket(secrets.token_hex(16), model_key(name), caller.name, OPEN, spec, 0)
        expires = await self._tickets.open(ticket, now(), limits.upload_ttl_seconds)
        return f"{name.parent}/uploads/{ticket.id}", expires

    async def receive(self, upload: str, pieces: AsyncIterator[bytes]) -> pb.ModelVersion:
        """Takes the artifact of an upload; returns the version it became, now or in an earlier
        call.
        """
        try:
            version = await self._receive(upload, pieces)
        except ServiceError:
            await linger(pieces)
            raise
        await linger(pieces)
        return version

    async def _receive(self, upload: str, pieces: AsyncIterator[bytes]) -> pb.ModelVersion:
        name, upload_id = parse_upload(upload)
        ticket = await self._tickets.get(upload_id, model_key(name))
        caller = context.caller()
        if ticket.creator != caller.name:
            raise UploadNotFound(
                "there is no such upload, or it has lapsed; open a new one", upload=upload_id
            )
        _check_permitted(caller, name.bucket, ticket.spec.format)
        if ticket.state == COMMITTED:
            return await self._store.version(name, ticket.version)
        with self._transfers.place():
            return await self._stream(name, ticket, pieces)

    async def drain(self) -> None:
        """Returns when every commit and removal under way has ended."""
        while self._unfinished:
            await asyncio.wait(self._unfinished)

    async def _stream(
        self, name: ModelName, ticket: Ticket, pieces: AsyncIterator[bytes]
    ) -> pb.ModelVersion:
        token = secrets.token_hex(16)
        writer = self._artifacts.writer(token)
        intake = Intake(ticket.spec, self._settings.max_artifact_bytes, CHUNK_BYTES)
        try:
            await self._tickets.claim(ticket.id, token)
            async with self._alive(ticket.id, token):
                sha256 = await self._take(intake, pieces, writer)
                version = await self._see_through(
                    self._store.commit(name, ticket, token, sha256, intake.size)
                )
        except BaseException:
            await self._see_through(self._abandon(ticket.id, token, writer))
            raise
        self._gauges.committed.inc()
        return version

    async def _take(
        self, intake: Intake, pieces: AsyncIterator[bytes], writer: ArtifactWriter
    ) -> str:
        """Stores the pieces durably; returns their digest. Raises DeadlinePassed when the client
        falls silent.
        """
        clock, idle = asyncio.get_running_loop().time, self._settings.upload_idle_seconds
        try:
            async with asyncio.timeout(idle) as patience:
                async for piece in pieces:
                    self._gauges.bytes_in.inc(len(piece))
                    for chunk in intake.feed(piece):
                        await _store(intake, chunk, writer)
                    patience.reschedule(clock() + idle)
        except TimeoutError:
            raise DeadlinePassed(
                f"nothing came for {idle:g} seconds; open a new upload and send again"
            ) from None
        for chunk in intake.end():
            await _store(intake, chunk, writer)
        sha256 = intake.finish()
        await writer.flush()
        return sha256

    async def _abandon(self, upload: str, token: str, writer: ArtifactWriter) -> None:
        """Removes a stream that broke off, unless its version came to be all the same."""
        try:
            if await self._tickets.drop(upload, token):
                self._gauges.aborted.inc()
                await writer.remove()
        except ServiceError as exc:
            self._log.warning("upload_left_behind", upload=upload, reason=exc.reason)

    async def _see_through(self, work: Awaitable[T]) -> T:
        """Does the work to its end, even when the call that wants it is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def _alive(self, upload: str, token: str) -> AsyncIterator[None]:
        """Renews the stream's lease as long as it takes."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE_SECONDS / 4)
                try:
                    await self._tickets.renew(upload, token)
                except ServiceError as exc:
                    self._log.warning("upload_lease_not_renewed", upload=upload, reason=exc.reason)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()


async def _store(intake: Intake, chunk: bytes, writer: ArtifactWriter) -> None:
    # The digest takes a thread of its own: hashing lets go of the interpreter, so the loop sends
    # meanwhile.
    digesting = asyncio.ensure_future(asyncio.to_thread(intake.digest, chunk))
    try:
        await writer.write(chunk)
    finally:
        await digesting


def _check_permitted(caller: Principal, bucket: str, format_id: str) -> None:
    if format_id in UNSAFE_FORMATS and not permits(caller.grants, UNSAFE_PERMISSION, bucket):
        raise NotPermitted(
            f"the format '{format_id}' can run code: storing it needs the permission"
            f" {UNSAFE_PERMISSION} on buckets/{bucket}; store a safe format such as 'skops' or"
            " 'onnx' instead",
            permission=UNSAFE_PERMISSION,
            format=format_id,
        )
