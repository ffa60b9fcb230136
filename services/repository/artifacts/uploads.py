"""Receives uploads: an opened session and a stream of bytes become a version, or nothing at all.

Whatever ends a stream early (the client, its deadline, wrong bytes, a shutdown) removes what the
stream wrote before the call returns. The sweeper does it for a process that died.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from services.chassis import background, context
from services.chassis.context import Principal
from services.repository.artifacts.artifact_store import ArtifactStore, ArtifactWriter
from services.repository.artifacts.incoming import discard_rest, receive_artifact
from services.repository.artifacts.upload_sessions import (
    COMMITTED,
    OPEN,
    UploadSession,
    UploadSessions,
    upload_not_found,
)
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.documents import model_key
from services.repository.catalogue.formats import UNSAFE_FORMATS, UNSAFE_PERMISSION
from services.repository.catalogue.models import Models, NewVersion, StoredArtifact
from services.repository.catalogue.specs import check_spec
from services.repository.config import RepositorySettings
from services.repository.metrics import RepositoryMetrics
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import NotPermitted, ServiceError
from stellwerk.wire.names import ModelName, parse_upload
from stellwerk.wire.permissions import permits

T = TypeVar("T")


class Uploads:
    """Opens uploads and receives their artifacts, for the caller of the current RPC."""

    def __init__(
        self,
        settings: RepositorySettings,
        buckets: Buckets,
        models: Models,
        sessions: UploadSessions,
        artifacts: ArtifactStore,
        metrics: RepositoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._models = models
        self._sessions = sessions
        self._artifacts = artifacts
        self._metrics = metrics
        self._log = log
        # Commits and removals, which outlive the call that began them.
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def open(self, name: ModelName, given: pb.ModelVersion) -> tuple[str, datetime]:
        """Opens an upload of a model's next version; returns its resource name and when it lapses.

        Raises InvalidInput, TooLarge, NotPermitted for a format that can run code, BucketNotFound,
        and Overloaded for a caller with too many open uploads.
        """
        caller, limits = context.caller(), self._settings
        spec = check_spec(given, limits.max_artifact_bytes)
        _check_permitted(caller, name.bucket, spec.format)
        await self._buckets.require(name.bucket)
        session = UploadSession(secrets.token_hex(16), model_key(name), caller.name, OPEN, spec, 0)
        expires = await self._sessions.open(
            session, limits.upload_ttl_seconds, limits.max_open_uploads
        )
        return f"{name.parent}/uploads/{session.id}", expires

    async def receive(self, upload: str, pieces: AsyncIterator[bytes]) -> pb.ModelVersion:
        """Receives the artifact of an upload; returns the version it became, in this call or an
        earlier one.

        Raises UploadNotFound, NotPermitted, Conflict for an upload that another stream claimed,
        Overloaded, InvalidInput, TooLarge, DeadlinePassed for a silent client, and Cancelled for a
        stream that broke.
        """
        try:
            version = await self._receive(upload, pieces)
        except ServiceError:
            await discard_rest(pieces)
            raise
        await discard_rest(pieces)
        return version

    async def _receive(self, upload: str, pieces: AsyncIterator[bytes]) -> pb.ModelVersion:
        name, upload_id = parse_upload(upload)
        session = await self._sessions.get(upload_id, model_key(name))
        caller = context.caller()
        if session.creator != caller.name:
            raise upload_not_found(upload_id)
        _check_permitted(caller, name.bucket, session.spec.format)
        if session.state == COMMITTED:
            # The client repeats an upload whose answer was lost.
            return await self._models.version(name, session.version)
        return await self._stream(name, session, pieces)

    async def drain(self) -> None:
        """Returns when every commit and removal in progress has ended. A claim that the database
        still makes is left to the sweeper.
        """
        while self._unfinished:
            await asyncio.wait(self._unfinished)

    async def _stream(
        self, name: ModelName, session: UploadSession, pieces: AsyncIterator[bytes]
    ) -> pb.ModelVersion:
        token = secrets.token_hex(16)
        with self._artifacts.writer(token) as writer:
            try:
                async with self._sessions.claimed(session.id, token):
                    sha256, size = await receive_artifact(
                        pieces, session.spec, writer, self._settings, self._metrics
                    )
                    artifact = StoredArtifact(token, sha256, size)
                    new = NewVersion(session.spec, session.creator, artifact, session.id)
                    close = partial(self._sessions.close, session.id, token)
                    version = await self._finish(self._models.create_version(name, new, close))
            except BaseException:
                await self._finish(self._abandon(session.id, token, writer))
                raise
        self._metrics.committed.inc()
        return version

    async def _abandon(self, upload: str, token: str, writer: ArtifactWriter) -> None:
        """Removes what a broken stream wrote, unless its version was created all the same."""
        await writer.settle()
        try:
            if await self._sessions.drop(upload, token):
                self._metrics.aborted.inc()
                await writer.remove()
        except ServiceError as exc:
            self._log.warning("upload_left_behind", upload=upload, reason=exc.reason)

    async def _finish(self, work: Awaitable[T]) -> T:
        """Awaits `work`, to its end even when the calling RPC is cancelled meanwhile: until then
        the transfer takes memory and is counted.
        """
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await background.to_its_end(task)


def _check_permitted(caller: Principal, bucket: str, format_id: str) -> None:
    """Raises NotPermitted unless the caller may store this format in this bucket."""
    if format_id in UNSAFE_FORMATS and not permits(caller.grants, UNSAFE_PERMISSION, bucket):
        raise NotPermitted(
            f"the format '{format_id}' can run code: storing it needs the permission"
            f" {UNSAFE_PERMISSION} on buckets/{bucket}; store a safe format such as 'skops' or"
            " 'onnx' instead",
            permission=UNSAFE_PERMISSION,
            format=format_id,
        )
