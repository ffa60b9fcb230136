"""The control plane's settings."""

from __future__ import annotations

from pathlib import Path

import pydantic

from services.chassis.config import ServiceSettings
from services.controlplane.identity.issuer import DEFAULT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS
from services.controlplane.identity.sealing import MIN_ROOT_KEY_LENGTH


class ControlPlaneSettings(ServiceSettings):
    """What the control plane can be told, beyond what every service can."""

    # A replica set (one member is enough): changes of several documents are transactions.
    mongo_url: pydantic.SecretStr
    mongo_database: str = pydantic.Field(
        default="stellwerk_controlplane", pattern=r"^[A-Za-z0-9_-]{1,38}$"
    )
    # Seals the signing keys in the database. A long random secret, kept outside of the database and
    # never changed.
    root_key: pydantic.SecretStr
    # Stands in every token as `iss`.
    issuer: str = pydantic.Field(default="stellwerk", min_length=1, max_length=200)
    token_lifetime_seconds: int = pydantic.Field(
        default=DEFAULT_LIFETIME_SECONDS, ge=60, le=MAX_LIFETIME_SECONDS
    )
    # A new signing key is shown this long before it signs. Services fetch the key set every 5 s.
    key_publish_seconds: float = pydantic.Field(default=12.0, ge=0, le=3600)
    # A directory of files <service>.key, each with that service's key; service_key is this one's
    # own.
    service_keys: Path | None = None
    # Where the first administrator's API key is put. A key that is there already is taken up.
    admin_key_file: Path | None = None
    # Makes a new administrator's key at this start, for when the first was lost. To be switched off
    # again after it.
    new_admin_key: bool = False
    # The gateway's gRPC address, to ask for its status; empty to leave it out.
    gateway: str = ""

    @pydantic.field_validator("mongo_url")
    @classmethod
    def _mongo_url_is_one(cls, value: pydantic.SecretStr) -> pydantic.SecretStr:
        if not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must look like mongodb://user:password@host:port/?replicaSet=name")
        return value

    @pydantic.field_validator("root_key")
    @classmethod
    def _root_key_is_long(cls, value: pydantic.SecretStr) -> pydantic.SecretStr:
        if len(value.get_secret_value()) < MIN_ROOT_KEY_LENGTH:
            raise ValueError(
                f"must have at least {MIN_ROOT_KEY_LENGTH} characters, drawn at random"
            )
        return value
