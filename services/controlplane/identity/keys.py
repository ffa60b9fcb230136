"""Creates and parses API keys and service keys, and reads the directory of service keys.

A secret holds 256 random bits, so a plain SHA-256 protects it: a slow, salted hash only helps
secrets that can be guessed. Only hashes are kept, and they are compared in constant time.
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

# Bytes read of a key file, which holds one or two lines of 79 characters at most.
_MAX_FILE_BYTES = 4096
# Seconds between two readings of the directory for unknown keys, so that a flood of wrong keys does
# not become a flood of reads.
_REREAD_SECONDS = 1.0
# Seconds after which the directory is read again even for a known key, so that a removed file ends
# its key.
_STALE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed key: its public id, or its service for a service key, and the SHA-256 of its
    text.
    """

    id: str
    hash: bytes


def digest(text: str) -> bytes:
    """Returns the SHA-256 of a key's text, which is all that is stored of the key."""
    return hashlib.sha256(text.encode()).digest()


def equal_hashes(left: bytes, right: bytes) -> bool:
    """Returns whether two hashes are equal, comparing in constant time."""
    return hmac.compare_digest(left, right)


def new_api_key() -> tuple[str, str]:
    """Returns a new API key: its id, and its text `swk_<id>_<secret>`."""
    key_id = secrets.token_hex(api_keys.ID_BYTES)
    return key_id, api_keys.api_key(key_id, secrets.token_urlsafe(api_keys.SECRET_BYTES))


def new_service_key(service: str) -> str:
    """Returns a new service key `sws_<service>_<secret>`."""
    return api_keys.service_key(service, secrets.token_urlsafe(api_keys.SECRET_BYTES))


def parse_api_key(text: str) -> ParsedKey | None:
    """Returns the API key that the text holds, None if it holds none."""
    key_id = api_keys.api_key_id(text)
    return ParsedKey(key_id, digest(text)) if key_id is not None else None


def parse_service_key(text: str) -> ParsedKey | None:
    """Returns the service key that the text holds, with the service as its id; None if it holds
    none, or names a service without a role.
    """
    service = api_keys.service_of_key(text)
    if service is None or f"service.{service}" not in ROLES:
        return None
    return ParsedKey(service, digest(text))


class ServiceKeys:
    """The keys of the platform's own processes, read from files <service>.key: one key a line, two
    while one is being replaced.

    Keeps only hashes. Reads the directory again for an unknown key and from time to time, so that
    files may be added, changed and removed while the control plane runs.
    """

    def __init__(self, directory: Path | None, monotonic: Callable[[], float]) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._hashes: Mapping[str, tuple[bytes, ...]] = {}
        self._read_at: float | None = None

    def holds(self, key: ParsedKey) -> bool:
        """Returns whether the key is one of its service's. Reads files: call it in a thread."""
        now = self._monotonic()
        stale = self._read_at is None or now - self._read_at >= _REREAD_SECONDS
        if stale and (
            self._read_at is None or not self._known(key) or now - self._read_at >= _STALE_SECONDS
        ):
            self._hashes = read_directory(self._directory)
            self._read_at = now
        return self._known(key)

    def _known(self, key: ParsedKey) -> bool:
        return any(equal_hashes(key.hash, known) for known in self._hashes.get(key.id, ()))


def read_directory(directory: Path | None) -> dict[str, tuple[bytes, ...]]:
    """Returns the hashes of the keys in the directory by service, without files that hold
    something else.
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
