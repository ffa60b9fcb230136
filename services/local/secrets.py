"""Makes the secrets that the platform needs before it runs, as files that only their owner can
read. Secrets that exist are kept.

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
# How `compose/compose.yaml` names the user and the servers of its containers.
CONTAINER_USER = "stellwerk"
_BROKER_HOST = "rabbitmq:5672"
_MONGO_HOST = "mongodb:27017"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Names the files that hold the secrets of one platform."""

    directory: Path

    @property
    def service_keys(self) -> Path:
        """The directory of all services' keys, which the control plane reads."""
        return self.directory / "service-keys"

    @property
    def root_key(self) -> Path:
        """The key that seals the signing keys in the database."""
        return self.directory / "root.key"

    @property
    def admin_key(self) -> Path:
        """The first administrator's API key."""
        return self.directory / "admin.key"

    def service_key(self, service: str) -> Path:
        """Returns the file that holds the key of one service."""
        return self.service_keys / f"{service}.key"

    def create(self) -> list[Path]:
        """Writes the secrets that are missing; returns the files that it wrote."""
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
        return [path for path, text in wanted.items() if _write_new(path, text)]

    def create_for_containers(self) -> list[Path]:
        """Writes what `compose/compose.yaml` mounts into RabbitMQ and MongoDB and is missing;
        returns the files that it wrote.

        Containers run under users that this machine does not have, and Compose mounts a file with
        the mode it has here. So everybody can read the files, and only their owner can enter the
        directory.
        """
        user = CONTAINER_USER
        rabbitmq = self.directory / "rabbitmq-password"
        mongo = self.directory / "mongo-password"
        passwords = (rabbitmq, mongo)
        written = [path for path in passwords if _write_new(path, secrets.token_urlsafe(32))]
        login = f"{user}:{rabbitmq.read_text()}"
        texts = {
            "broker-url": f"amqp://{login}@{_BROKER_HOST}/%2F",
            "rabbitmq.conf": f"default_user = {user}\ndefault_pass = {rabbitmq.read_text()}\n",
            "mongo-url": f"mongodb://{user}:{mongo.read_text()}@{_MONGO_HOST}"
            "/?authSource=admin&replicaSet=rs0",
        }
        files = {self.directory / name: text for name, text in texts.items()}
        written += [path for path, text in files.items() if _write_new(path, text)]
        for path in self.directory.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.directory.chmod(0o700)
        return written


def _random_secret() -> str:
    return secrets.token_urlsafe(api_keys.SECRET_BYTES)


def _write_new(path: Path, text: str) -> bool:
    """Writes a secret unless the file holds one already; returns whether it wrote."""
    if path.exists() and path.stat().st_size > 0:
        return False
    write(path, text)
    return True


def write(path: Path, text: str) -> None:
    """Writes a file with mode 0600 in one step: a reader sees the old text or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
