"""An artifact on its way in: pieces of any size become chunks of one size, counted, digested and
checked. No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from services.repository.catalogue.formats import HEAD_BYTES, check_beginning
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.errors import InvalidInput, TooLarge


class Intake:
    """Feed pieces, take chunks. The beginning is checked before the first chunk is given out."""

    def __init__(self, spec: pb.ModelVersion, max_bytes: int, chunk_bytes: int) -> None:
        self._spec, self._chunk_bytes = spec, chunk_bytes
        # One byte more than was declared is wrong already; no need to take the rest.
        self._limit = spec.size_bytes or max_bytes
        self._rest = bytearray()
        self._checked = False
        self._digest = hashlib.sha256()
        self.size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The chunks that this piece completes. Raises TooLarge, InvalidInput."""
        self.size += len(piece)
        if self.size > self._limit:
            raise self._too_long()
        if not self._rest and len(piece) == self._chunk_bytes:
            # The common case costs no copy.
            yield self._checked_chunk(piece)
            return
        self._rest += piece
        while len(self._rest) >= self._chunk_bytes:
            chunk = bytes(self._rest[: self._chunk_bytes])
            del self._rest[: self._chunk_bytes]
            yield self._checked_chunk(chunk)

    def end(self) -> Iterator[bytes]:
        """The last chunk, if any is left. Raises InvalidInput."""
        if self.size == 0:
            raise InvalidInput("the artifact is empty; send its bytes", field="artifact")
        if self._rest:
            yield self._checked_chunk(bytes(self._rest))
            self._rest.clear()

    def digest(self, chunk: bytes) -> None:
        """Counts a chunk into the digest, in order; the caller may do so in a thread."""
        self._digest.update(chunk)

    def finish(self) -> str:
        """The digest of everything. Raises InvalidInput unless size and digest are what was
        declared.
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

    def _checked_chunk(self, chunk: bytes) -> bytes:
        if not self._checked:
            check_beginning(self._spec.format, chunk[:HEAD_BYTES])
            self._checked = True
        return chunk

    def _too_long(self) -> InvalidInput | TooLarge:
        if self._spec.size_bytes:
            return InvalidInput(
                f"the artifact has more than the {self._limit} bytes declared",
                field="size_bytes",
                declared=self._limit,
            )
        return TooLarge(f"an artifact may have {self._limit} bytes", limit=self._limit)
