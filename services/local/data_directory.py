"""The directory of one platform: where everything lies in it, and the lock that keeps a second
supervisor out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from services.local.errors import StartFailed
from services.local.plan import SecretFiles
from services.local.secrets import Secrets

# MongoDB allocates two journal files of 100 MB at its first start, and RabbitMQ stops publishers
# when less than 100 MB are free.
LEAST_FREE_BYTES = 300_000_000


def absolute_path(given: str, default: str) -> Path:
    """Returns the path of the data directory that the user gives.

    `default` is "" if the account has no home directory. Raises StartFailed for a text that names
    no directory.
    """
    if not given.strip():
        told = "--data-dir is empty"
        if not default:
            told = "this account has no home directory to keep data in"
        raise StartFailed(f"{told}; give a directory with --data-dir")
    try:
        path = Path(given).expanduser().absolute()
    except RuntimeError:
        raise StartFailed(
            f"the home directory in --data-dir {given} is not known; write the path out"
        ) from None
    if path == path.parent:
        raise StartFailed(f"--data-dir {given} is the root of all files; give one of its own")
    return path


class DataDirectory:
    """Names the files of one platform; `open` makes the directory and locks it.

    The lock ends with its process, however the process ends.
    """

    def __init__(self, path: Path, least_free_bytes: int = LEAST_FREE_BYTES) -> None:
        self.path = path
        self._least_free_bytes = least_free_bytes
        self.secrets = Secrets(path / "secrets")
        # Holds an administrator's token while the platform runs.
        self.token = path / "token"
        # Holds the ready report while the platform runs.
        self.ready = path / "ready.json"
        # Holds one log file for each process.
        self.logs = path / "logs"
        # The working directory of the five services.
        self.run = path / "run"
        self._lock: int | None = None

    @property
    def secret_files(self) -> SecretFiles:
        """The files that tell services secrets."""
        secrets = self.secrets
        return SecretFiles(
            broker_url=secrets.directory / "broker-url",
            mongo_url=secrets.directory / "mongo-url",
            service_keys=secrets.service_keys,
            root_key=secrets.root_key,
            admin_key=secrets.admin_key,
        )

    @property
    def locked(self) -> bool:
        """Tells whether this process holds the directory."""
        return self._lock is not None

    def open(self) -> None:
        """Makes the directory and what is missing in it, and locks it.

        Raises StartFailed if it cannot be made or written, if its disk is full, or if another
        supervisor holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._acquire()
            self.ready.unlink(missing_ok=True)
            self._require_space()
            for directory in (self.logs, self.run):
                directory.mkdir(exist_ok=True, mode=0o700)
            self.secrets.create()
        except OSError as exc:
            raise StartFailed(self._why_not(exc)) from None

    def release(self) -> None:
        """Gives the lock up; the directory stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _acquire(self) -> None:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise StartFailed(
                f"a platform already runs in {self.path} (process {holder or 'unknown'}); "
                "stop it, or give this one another directory with --data-dir"
            ) from None
        self._lock = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < self._least_free_bytes:
            raise StartFailed(
                f"the disk of {self.path} has {free // 1_000_000} MB left and the platform needs"
                f" {self._least_free_bytes // 1_000_000} MB to start; make room, or give another"
                " directory with --data-dir"
            )

    def _why_not(self, exc: OSError) -> str:
        parts = (self.path, *self.path.parents)
        blocking = next((part for part in parts if part.exists() and not part.is_dir()), None)
        if blocking is not None:
            problem = "it is a file" if blocking == self.path else f"{blocking} is a file"
        else:
            problem = exc.strerror or type(exc).__name__
            if exc.filename and Path(os.fsdecode(exc.filename)) != self.path:
                problem = f"{os.fsdecode(exc.filename)}: {problem}"
        return (
            f"the data directory {self.path} cannot be used ({problem}); give another with"
            " --data-dir"
        )
