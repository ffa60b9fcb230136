"""Settings, read once from the environment into a frozen object.

The variable of a field is STELLWERK_<FIELD>. STELLWERK_<FIELD>_FILE names a file that holds the
value, for secrets. All wrong variables are reported together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import pydantic

PREFIX = "STELLWERK_"
_FILE = "_FILE"
# Similarity of two names, from 0 to 1, from which one counts as a misspelling of the other. 0.88
# finds a wrong, missing or swapped letter in names of eight letters and more.
_MISSPELT = 0.88
# Settings of one service that resemble a setting of all; a test finds what is missing here.
_OF_OTHERS = frozenset({"SERVICE_KEYS"})
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):([0-9]{1,5})")


class ConfigError(Exception):
    """The settings cannot be used; one line "VARIABLE: problem" for each wrong variable."""


class CannotListen(Exception):
    """An address that the settings name cannot be bound now, in one sentence."""


def _listen_address(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:50051; port 0 takes a free one")
    return value


def _broker_url(value: pydantic.SecretStr) -> pydantic.SecretStr:
    text = value.get_secret_value()
    if text == "pull":
        return value
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError('must be "pull" or amqp://user:password@host:port/vhost')
    return value


def check_otel_endpoint(value: str) -> str:
    """Returns the address of an OTLP/gRPC collector, "" for none. Raises ValueError for others."""
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
        usable = bool(parts.hostname and parts.port) and parts.path in ("", "/")
        usable = usable and parts.scheme in ("http", "https") and not parts.query
    except ValueError:
        usable = False
    if value and not usable:
        raise ValueError("must be host:port or http(s)://host:port, such as http://127.0.0.1:4317")
    return value


# An address to bind, host:port.
ListenAddress = Annotated[str, pydantic.AfterValidator(_listen_address)]


class ServiceSettings(pydantic.BaseModel):
    """Settings of every service. Each service adds its own in its `config.py`."""

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
    broker: Annotated[pydantic.SecretStr, pydantic.AfterValidator(_broker_url)] = (
        pydantic.SecretStr("pull")
    )

    # OTLP/gRPC collector for traces, such as http://127.0.0.1:4317; empty for no tracing.
    otel_endpoint: Annotated[str, pydantic.AfterValidator(check_otel_endpoint)] = ""
    max_message_bytes: int = pydantic.Field(default=64 * 1024 * 1024, ge=64 * 1024)
    # A unary call lives this long at most, whatever its caller says.
    max_deadline_seconds: float = pydantic.Field(default=300.0, gt=0)
    drain_seconds: float = pydantic.Field(default=20.0, ge=0)
    # All three switch mutual TLS on for every internal connection.
    tls_certificate: pydantic.FilePath | None = None
    tls_key: pydantic.FilePath | None = None
    tls_ca: pydantic.FilePath | None = None

    @pydantic.field_validator("listen", "metrics_listen")
    @classmethod
    def _is_address(cls, value: str, field: pydantic.ValidationInfo) -> str:
        return (
            value if field.field_name == "metrics_listen" and not value else _listen_address(value)
        )

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
    """Returns the settings that the environment gives.

    Raises ConfigError, which names all wrong variables.
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
            except UnicodeDecodeError:
                problems.append(f"{variable}{_FILE}: the file holds no text")
    try:
        settings = cls(**values)  # type: ignore[arg-type]
    except pydantic.ValidationError as exc:
        for error in exc.errors(include_input=False, include_url=False):
            where = PREFIX + str(error["loc"][0]).upper() if error["loc"] else "settings"
            problems.append(f"{where}: {error['msg'].removeprefix('Value error, ')}")
    else:
        if not problems:
            return settings
    raise ConfigError("\n".join(sorted(problems)))


def misspelt(cls: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that misspell a setting of this class, with the setting they resemble.

    Other unknown variables are left alone: services share env files, and an older release must
    start with the settings of a newer one.
    """
    fields = [field.upper() for field in cls.model_fields]
    found = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX[:-1]):
            continue
        # Prefix and suffix are the same in all names, so they are no part of the comparison.
        name = variable.removeprefix(PREFIX[:-1]).removeprefix("_")
        suffix = _FILE if name.endswith("FILE") and name not in fields else ""
        if suffix:
            name = name.removesuffix("FILE").removesuffix("_")
        nearest = difflib.get_close_matches(name, fields, n=1, cutoff=_MISSPELT)
        if nearest and name not in _OF_OTHERS and variable != PREFIX + nearest[0] + suffix:
            found[variable] = PREFIX + nearest[0] + suffix
    return found
