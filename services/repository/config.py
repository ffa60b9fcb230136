"""What the repository can be told."""

from __future__ import annotations

import pydantic

from services.chassis.config import ServiceSettings

GIB = 1024**3


class RepositorySettings(ServiceSettings):
    """The settings of the repository; each variable is STELLWERK_<FIELD>."""

    # A replica set (one member is enough): versions are committed in transactions.
    mongo_url: pydantic.SecretStr = pydantic.SecretStr(
        "mongodb://127.0.0.1:27017/?directConnection=true"
    )
    mongo_database: str = "stellwerk_repository"
    max_artifact_bytes: int = pydantic.Field(default=10 * GIB, ge=1)
    # An upload that is not finished by then lapses.
    upload_ttl_seconds: float = pydantic.Field(default=3600.0, gt=0)
    # An upload whose client sends nothing for this long is given up.
    upload_idle_seconds: float = pydantic.Field(default=60.0, gt=0)
    # Uploads one caller may have open.
    max_open_uploads: int = pydantic.Field(default=1000, ge=1)
    # Artifacts on their way in or out of this process at a time; each takes some 16 MiB of memory.
    max_transfers: int = pydantic.Field(default=64, ge=1)
    # How much of an artifact one message of a download carries at most.
    download_piece_bytes: int = pydantic.Field(default=1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    # How often what broken processes left behind is looked for.
    sweep_seconds: float = pydantic.Field(default=60.0, gt=0)
    # How often events are looked for that no commit of this process announced.
    relay_seconds: float = pydantic.Field(default=5.0, gt=0)
