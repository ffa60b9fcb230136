"""The gateway's settings."""

from __future__ import annotations

import pydantic

from services.chassis.config import ListenAddress, ServiceSettings

_MIB = 1024 * 1024


class GatewaySettings(ServiceSettings):
    """Addresses of the two doors, and the limits on requests."""

    # gRPC for clients.
    listen: str = "127.0.0.1:8081"
    # REST for clients; port 0 takes a free one.
    http_listen: ListenAddress = "127.0.0.1:8080"

    # Bytes of a body that is read whole, after decompression. Streamed uploads have no limit here.
    max_body_bytes: int = pydantic.Field(default=64 * _MIB, ge=1024)
    # Bytes of a response from which it is compressed for clients that ask for it.
    compress_from_bytes: int = pydantic.Field(default=4096, ge=0)
    # Seconds that a connection may take to send a request's head, and to begin its first one.
    header_seconds: float = pydantic.Field(default=20.0, gt=0)
    max_header_bytes: int = pydantic.Field(default=64 * 1024, ge=4096)

    # Seconds of a call that names no deadline; max_deadline_seconds caps what a call may name.
    default_deadline_seconds: float = pydantic.Field(default=30.0, gt=0)
    # Seconds that a transfer of an artifact may take.
    max_stream_seconds: float = pydantic.Field(default=3600.0, gt=0)

    # Origins that browsers may call from, joined by commas, or "*"; empty for none.
    allow_origins: str = ""
    # gRPC server reflection tells anyone who asks which services exist.
    reflection: bool = False
    # API keys whose tokens are kept.
    credential_cache_size: int = pydantic.Field(default=10_000, ge=1)

    @pydantic.field_validator("http_listen", "listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port, such as 127.0.0.1:8080")
        return value

    @property
    def origins(self) -> frozenset[str]:
        """Returns the allowed origins as a set."""
        return frozenset(
            origin.strip() for origin in self.allow_origins.split(",") if origin.strip()
        )
