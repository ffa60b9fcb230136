"""One supervisor per data directory. The lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another supervisor holds the data directory; the message says which."""


class DataDirectoryLock:
    """Held from `acquire` until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._directory = directory
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Raises AlreadyRunning if another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise AlreadyRunning(
                f"a platform already runs in {self._directory} (process {holder or 'unknown'}); "
                "stop it, or give this one another directory with --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
