"""API keys of principals and keys of services: their form, their hashes, and the directory of
service keys.

A secret is 256 random bits, so one SHA-256 is the right hash for it: there is nothing a slow,
salted hash would protect from guessing. Hashes are compared in constant time; the secret itself is
never kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stellwerk.wire import api_keys
from stellwerk.wire.permissions import ROLES

# A key file is one line; what is larger is not one.
_MAX_FILE_BYTES = 4096
# Unknown keys make the directory be read again, but no more often than this.
_REREAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key as a caller presented it: its public id (or its service), and the hash of
    all of it.
    """

    id: str
    hash: bytes


def digest(text: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(text.encode()).digest()


def same(left: bytes, right: bytes) -> bool:
    """Whether two hashes are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(left, right)


def new_api_key() -> tuple[str, str]:
    """A new key's id and its full text, swk_<id>_<secret>."""
    key_id = secrets.token_hex(api_keys.ID_BYTES)
    return key_id, api_keys.api_key(key_id, secrets.token_urlsafe(api_keys.SECRET_BYTES))


def new_service_key(service: str) -> str:
    """A new key of a service, sws_<service>_<secret>."""
    return api_keys.service_key(service, secrets.token_urlsafe(api_keys.SECRET_BYTES))


def parse_api_key(text: str) -> Presented | None:
    """The key, or None if the text is none."""
    key_id = api_keys.api_key_id(text)
    return Presented(key_id, digest(text)) if key_id is not None else None


def parse_service_key(text: str) -> Presented | None:
    """The key, its service as id, or None if the text is none or names no service that has a
    role.
    """
    service = api_keys.service_of_key(text)
    if service is None or f"service.{service}" not in ROLES:
        return None
    return Presented(service, digest(text))


class ServiceKeys:
    """The keys of the platform's own processes, from files <service>.key, one key a line (two while
    one is replaced).

    Only hashes stay in memory. A key that is not known makes the directory be read again, so files
    may be added, changed and removed while the control plane runs.
    """

    def __init__(self, directory: Path | None, monotonic: Callable[[], float]) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._hashes: Mapping[str, tuple[bytes, ...]] = {}
        self._read_at: float | None = None

    def holds(self, key: Presented) -> bool:
        """Whether the key is one of its service's. Reads files: call it off the loop."""
        now = self._monotonic()
        stale = self._read_at is None or now - self._read_at >= _REREAD_SECONDS
        if stale and (
            self._read_at is None
            or not self._known(key)
            or now - self._read_at >= 30 * _REREAD_SECONDS
        ):
            self._hashes = read_directory(self._directory)
            self._read_at = now
        return self._known(key)

    def _known(self, key: Presented) -> bool:
        return any(same(key.hash, known) for known in self._hashes.get(key.id, ()))


def read_directory(directory: Path | None) -> dict[str, tuple[bytes, ...]]:
    """The hashes of the keys in the directory, by service. A file that holds something else is
    passed over.
    """
    found: dict[str, tuple[bytes, ...]] = {}
    if directory is None or not directory.is_dir():
        return found
    for path in sorted(directory.glob("*.key")):
        try:
            lines = path.read_bytes()[:_MAX_FILE_BYTES].decode().split()
        except (OSError, UnicodeDecodeError):
            continue
        parsed = [parse_service_key(line) for line in lines]
        found[path.stem] = tuple(
            key.hash for key in parsed if key is not None and key.id == path.stem
        )
    return found
