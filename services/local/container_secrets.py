"""The secrets that `compose/compose.yaml` mounts into containers, beside those the services share.

Containers run under users that this machine does not have, and Compose mounts a file with the mode
it has here. So the files can be read by everybody, and the directory they lie in can be entered
only by its owner.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from services.local.secrets import write_new

USER = "stellwerk"
BROKER_HOST, MONGO_HOST = "rabbitmq:5672", "mongodb:27017"


def create(directory: Path) -> list[Path]:
    """Writes what is missing into a directory that holds the services' secrets; returns what was
    written.
    """
    rabbitmq, mongo = directory / "rabbitmq-password", directory / "mongo-password"
    written = [path for path in (rabbitmq, mongo) if write_new(path, secrets.token_urlsafe(32))]
    texts = {
        directory / "broker-url": f"amqp://{USER}:{rabbitmq.read_text()}@{BROKER_HOST}/%2F",
        directory
        / "rabbitmq.conf": f"default_user = {USER}\ndefault_pass = {rabbitmq.read_text()}\n",
        directory
        / "mongo-url": f"mongodb://{USER}:{mongo.read_text()}@{MONGO_HOST}/?authSource=admin&replicaSet=rs0",
    }
    written += [path for path, text in texts.items() if write_new(path, text)]
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    directory.chmod(0o700)
    return written
