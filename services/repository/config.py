"""Defines the repository's settings."""

from __future__ import annotations

import pydantic

from services.chassis.config import ServiceSettings

GIB = 1024**3


class RepositorySettings(ServiceSettings):
    """The settings of the repository; each variable is STELLWERK_<FIELD>."""

    # Must be a replica set, of one member at least: versions are committed in transactions.
    mongo_url: pydantic.SecretStr = pydantic.SecretStr(
        "mongodb://127.0.0.1:27017/?directConnection=true"
    )
    # The database that holds models, versions and artifacts.
    mongo_database: str = "stellwerk_repository"
    # The largest artifact in bytes; a larger one is refused with TOO_LARGE.
    max_artifact_bytes: int = pydantic.Field(default=10 * GIB, ge=1)
    # Seconds after which an opened upload lapses if no stream has begun.
    upload_ttl_seconds: float = pydantic.Field(default=3600.0, gt=0)
    # Seconds without a byte after which an upload is ended with DEADLINE_EXCEEDED.
    upload_idle_seconds: float = pydantic.Field(default=60.0, gt=0)
    # Unfinished uploads that one caller may have.
    max_open_uploads: int = pydantic.Field(default=1000, ge=1)
    # Artifacts received and sent by this process at a time; each takes about 16 MiB of memory.
    max_transfers: int = pydantic.Field(default=64, ge=1)
    # Bytes of an artifact that one message of a download carries at most.
    download_piece_bytes: int = pydantic.Field(default=1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    # Seconds between two sweeps for files that dead processes left.
    sweep_seconds: float = pydantic.Field(default=60.0, gt=0)
    # Seconds between two looks for events that another process committed and did not publish.
    relay_seconds: float = pydantic.Field(default=5.0, gt=0)
