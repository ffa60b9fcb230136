"""Settings, parsed once from the environment into a frozen object; everything wrong is reported
together.

The variable of a field is STELLWERK_<FIELD>. STELLWERK_<FIELD>_FILE names a file that holds the
value, for secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import pydantic

PREFIX = "STELLWERK_"
_FILE = "_FILE"


class ConfigError(Exception):
    """The settings cannot be used; one line for each thing that is wrong."""


class ServiceSettings(pydantic.BaseModel):
    """What every service can be told. Each service adds its own in its `config.py`."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Where the gRPC server binds; port 0 takes a free one.
    listen: str = "127.0.0.1:0"
    # Where Prometheus metrics are served; empty for nowhere.
    metrics_listen: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    # A name for this process; empty for a random one.
    instance: str = ""

    controlplane: str = "127.0.0.1:50055"
    router: str = "127.0.0.1:50052"
    repository: str = "127.0.0.1:50053"
    # This service's own credential, exchanged for short tokens at the control plane.
    service_key: pydantic.SecretStr | None = None
    # "pull" for the embedded broker that the router hosts, or amqp://user:password@host:port/vhost.
    broker: pydantic.SecretStr = pydantic.SecretStr("pull")

    # OTLP/gRPC collector for traces, such as http://127.0.0.1:4317; empty for no tracing.
    otel_endpoint: str = ""
    max_message_bytes: int = pydantic.Field(default=64 * 1024 * 1024, ge=64 * 1024)
    # A unary call lives this long at most, whatever its caller says.
    max_deadline_seconds: float = pydantic.Field(default=300.0, gt=0)
    drain_seconds: float = pydantic.Field(default=20.0, ge=0)
    # All three switch mutual TLS on for every internal connection.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None

    @pydantic.model_validator(mode="after")
    def _tls_is_whole(self) -> ServiceSettings:
        given = [self.tls_certificate, self.tls_key, self.tls_ca]
        if any(given) and not all(given):
            raise ValueError(
                "tls_certificate, tls_key and tls_ca belong together: give all three or none"
            )
        return self


S = TypeVar("S", bound=ServiceSettings)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings that the environment gives. Raises ConfigError that names every wrong variable
    at once.
    """
    problems: list[str] = []
    values: dict[str, str] = {}
    for field in cls.model_fields:
        variable = PREFIX + field.upper()
        path = environ.get(variable + _FILE)
        if variable in environ:
            values[field] = environ[variable]
        elif path is not None:
            try:
                values[field] = Path(path).read_text().strip()
            except OSError as exc:
                problems.append(f"{variable}{_FILE}: cannot read the file: {exc.strerror}")
    try:
        settings = cls(**values)  # type: ignore[arg-type]
    except pydantic.ValidationError as exc:
        for error in exc.errors(include_input=False, include_url=False):
            where = PREFIX + str(error["loc"][0]).upper() if error["loc"] else "settings"
            problems.append(f"{where}: {error['msg']}")
    else:
        if not problems:
            return settings
    raise ConfigError("\n".join(sorted(problems)))
