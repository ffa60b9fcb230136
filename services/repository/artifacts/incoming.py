"""Receives an artifact from an upload's gRPC stream: cuts it into chunks, checks them against the
declared format, size and digest, and writes them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from services.repository.artifacts.artifact_store import ArtifactWriter
from services.repository.catalogue.formats import HEAD_BYTES, check_beginning
from services.repository.config import RepositorySettings
from services.repository.metrics import RepositoryMetrics
from services.repository.mongo import CHUNK_BYTES
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import Cancelled, DeadlinePassed, InvalidInput, TooLarge

# Bytes and seconds for which `discard_rest` reads on at most: enough for a client to notice the
# answer, and a bound for a body without an end. Chosen, not measured.
_REST_BYTES = 64 * 1024 * 1024
_REST_SECONDS = 2.0


async def open_stream(
    messages: AsyncIterator[pb.UploadArtifactRequest], context: Any
) -> tuple[str, AsyncIterator[bytes]]:
    """Returns the upload's name, which the first message holds, and the pieces of all messages.

    The pieces end only if the client ended the stream; Cancelled is raised if the stream broke.
    Raises InvalidInput for a stream without a message.
    """
    first = await anext(messages, None)
    if first is None:
        raise InvalidInput("the first message names the upload", field="name")
    return first.name, _pieces(first.artifact.data, messages, context)


async def _pieces(
    first: bytes, messages: AsyncIterator[pb.UploadArtifactRequest], context: Any
) -> AsyncIterator[bytes]:
    yield first
    async for message in messages:
        yield message.artifact.data
    # grpc.aio reports a broken stream as ended, and cancels the handler some moments later. Sending
    # tells the two apart at once: it fails on a broken stream.
    try:
        await context.send_initial_metadata(())
    except Exception as exc:
        raise Cancelled("the upload broke off; open a new one and send it again") from exc


async def receive_artifact(
    pieces: AsyncIterator[bytes],
    spec: pb.ModelVersion,
    writer: ArtifactWriter,
    limits: RepositorySettings,
    metrics: RepositoryMetrics,
) -> tuple[str, int]:
    """Checks the pieces against what the version's spec declares and writes them durably; returns
    their SHA-256 in hex and their number of bytes.

    Raises InvalidInput, TooLarge, DeadlinePassed for a client that sends nothing for
    `upload_idle_seconds`, and what `pieces` raises.
    """
    chunker = ArtifactChunker(spec, limits.max_artifact_bytes, CHUNK_BYTES)
    idle_seconds = limits.upload_idle_seconds
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(idle_seconds) as silence:
            async for piece in pieces:
                metrics.bytes_in.inc(len(piece))
                for chunk in chunker.feed(piece):
                    await _write(chunk, chunker, writer)
                silence.reschedule(clock() + idle_seconds)
    except TimeoutError:
        raise DeadlinePassed(
            f"no bytes arrived for {idle_seconds:g} seconds; open a new upload and send it again"
        ) from None
    for chunk in chunker.end():
        await _write(chunk, chunker, writer)
    sha256 = chunker.finish()
    await writer.flush()
    return sha256, chunker.size


async def _write(chunk: bytes, chunker: ArtifactChunker, writer: ArtifactWriter) -> None:
    # In a thread: hashing releases the interpreter's lock, so the loop writes meanwhile.
    digesting = asyncio.ensure_future(asyncio.to_thread(chunker.digest, chunk))
    try:
        await writer.write(chunk)
    finally:
        # Awaited even after a failure: the next chunk's digest must not begin before.
        await digesting


async def discard_rest(pieces: AsyncIterator[bytes]) -> None:
    """Reads the rest of a stream whose answer is already known, within _REST_BYTES and
    _REST_SECONDS.

    A grpc.aio client whose message cannot be sent because the call has ended may report that
    instead of the answer.
    """
    size = 0
    try:
        async with asyncio.timeout(_REST_SECONDS):
            async for piece in pieces:
                size += len(piece)
                if size > _REST_BYTES:
                    return
    except (TimeoutError, Cancelled):
        return


class ArtifactChunker:
    """Turns pieces of any size into chunks of `chunk_bytes`, the last one excepted, and checks them
    against the declared format, size and digest. Does no I/O.

    Call `feed` with each piece, then `end`, and `digest` with each chunk in order; then `finish`.
    """

    def __init__(self, spec: pb.ModelVersion, max_bytes: int, chunk_bytes: int) -> None:
        self._spec = spec
        self._chunk_bytes = chunk_bytes
        # A declared size is the limit: one byte more is an error, whatever follows.
        self._limit = spec.size_bytes or max_bytes
        self._rest = bytearray()
        self._beginning_checked = False
        self._digest = hashlib.sha256()
        self.size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yields the chunks that this piece completes. Raises TooLarge, and InvalidInput for more
        bytes than declared or a wrong beginning.
        """
        self.size += len(piece)
        if self.size > self._limit:
            raise self._too_long()
        if not self._rest and len(piece) == self._chunk_bytes:
            # A client that sends whole chunks costs no copy.
            yield self._checked(piece)
            return
        self._rest += piece
        while len(self._rest) >= self._chunk_bytes:
            chunk = bytes(self._rest[: self._chunk_bytes])
            del self._rest[: self._chunk_bytes]
            yield self._checked(chunk)

    def end(self) -> Iterator[bytes]:
        """Yields the last chunk if bytes are left. Raises InvalidInput for an empty artifact."""
        if self.size == 0:
            raise InvalidInput("the artifact is empty; send its bytes", field="artifact")
        if self._rest:
            yield self._checked(bytes(self._rest))
            self._rest.clear()

    def digest(self, chunk: bytes) -> None:
        """Adds the next chunk to the digest; safe in a thread, one chunk at a time."""
        self._digest.update(chunk)

    def finish(self) -> str:
        """Returns the artifact's SHA-256 in hex. Raises InvalidInput if size or digest are not
        those declared.
        """
        sha256 = self._digest.hexdigest()
        if self._spec.size_bytes and self.size != self._spec.size_bytes:
            raise InvalidInput(
                f"the artifact has {self.size} bytes, {self._spec.size_bytes} were declared; send"
                " it again",
                field="size_bytes",
                declared=self._spec.size_bytes,
                got=self.size,
            )
        if self._spec.sha256 and sha256 != self._spec.sha256:
            raise InvalidInput(
                "the artifact does not have the declared sha256; send it again",
                field="sha256",
                declared=self._spec.sha256,
                got=sha256,
            )
        return sha256

    def _checked(self, chunk: bytes) -> bytes:
        if not self._beginning_checked:
            check_beginning(self._spec.format, chunk[:HEAD_BYTES])
            self._beginning_checked = True
        return chunk

    def _too_long(self) -> InvalidInput | TooLarge:
        if self._spec.size_bytes:
            return InvalidInput(
                f"the artifact has more than the {self._limit} bytes declared",
                field="size_bytes",
                declared=self._limit,
            )
        return TooLarge(f"an artifact may have {self._limit} bytes", limit=self._limit)
