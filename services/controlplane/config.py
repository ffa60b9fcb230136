"""Defines the control plane's settings."""

from __future__ import annotations

from pathlib import Path

import pydantic

from services.chassis.config import ServiceSettings

# Seconds that an access token lives unless the caller asks for another lifetime, and at most.
DEFAULT_LIFETIME_SECONDS = 900
MAX_LIFETIME_SECONDS = 24 * 3600
# Characters of a root key, which must be drawn at random: 32 hexadecimal digits hold 128 bits, too
# many to guess.
MIN_ROOT_KEY_LENGTH = 32


class ControlPlaneSettings(ServiceSettings):
    """The settings of the control plane; each variable is STELLWERK_<FIELD>."""

    # Must be a replica set, of one member at least: changes of several documents are transactions.
    mongo_url: pydantic.SecretStr
    # The database that holds principals, keys and the audit ledger.
    mongo_database: str = pydantic.Field(
        default="stellwerk_controlplane", pattern=r"^[A-Za-z0-9_-]{1,38}$"
    )
    # Encrypts the signing keys in the database. A random secret of at least 32 characters, kept
    # outside of the database and never changed.
    root_key: pydantic.SecretStr
    # The claim `iss` of every token.
    issuer: str = pydantic.Field(default="stellwerk", min_length=1, max_length=200)
    # Seconds that a token lives if its caller asks for no other lifetime.
    token_lifetime_seconds: int = pydantic.Field(
        default=DEFAULT_LIFETIME_SECONDS, ge=60, le=MAX_LIFETIME_SECONDS
    )
    # Seconds between publishing a new signing key and signing with it. Services fetch the key set
    # every 5 s, so 12 s let each of them miss one fetch.
    key_publish_seconds: float = pydantic.Field(default=12.0, ge=0, le=3600)
    # The directory with one file <service>.key for each service that may obtain tokens.
    service_keys: Path | None = None
    # The file that the first administrator's API key is written to. A key that the file already
    # holds is used instead of a new one.
    admin_key_file: Path | None = None
    # Creates a new key for the administrator at this start, after the first one was lost. Switch it
    # off again afterwards.
    new_admin_key: bool = False
    # The gateway's gRPC address, to ask for its status; empty to leave the gateway out.
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
