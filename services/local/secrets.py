"""The secrets the platform needs before it runs, as files that only their owner can read. What
exists is kept.

A service's key is its identity: the service shows it to the control plane, which knows all of them
from the directory.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from stellwerk.wire import api_keys

SERVICES = ("api_gateway", "router", "runtime", "repository", "controlplane")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where the secrets of one platform lie."""

    directory: Path

    @property
    def service_keys(self) -> Path:
        return self.directory / "service-keys"

    @property
    def root_key(self) -> Path:
        """Seals the signing keys in the database."""
        return self.directory / "root.key"

    @property
    def admin_key(self) -> Path:
        """The first administrator's API key."""
        return self.directory / "admin.key"

    def service_key(self, service: str) -> Path:
        return self.service_keys / f"{service}.key"

    def create(self) -> list[Path]:
        """Writes what is missing; returns what was written."""
        for directory in (self.directory, self.service_keys):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.chmod(0o700)
        wanted = {
            self.service_key(name): api_keys.service_key(name, _random_secret())
            for name in SERVICES
        }
        wanted[self.root_key] = secrets.token_urlsafe(48)
        key_id = secrets.token_hex(api_keys.ID_BYTES)
        wanted[self.admin_key] = api_keys.api_key(key_id, _random_secret())
        return [path for path, text in wanted.items() if write_new(path, text)]


def _random_secret() -> str:
    return secrets.token_urlsafe(api_keys.SECRET_BYTES)


def write_new(path: Path, text: str) -> bool:
    """Writes a secret (mode 0600) unless the file holds one already; says whether it did."""
    if path.exists() and path.stat().st_size > 0:
        return False
    write(path, text)
    return True


def write(path: Path, text: str) -> None:
    """Writes a file with mode 0600 at once: a reader sees the old text or the new one, never half
    of it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
