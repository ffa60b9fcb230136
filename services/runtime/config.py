"""The runtime's settings."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import platformdirs
import pydantic

from services.chassis.config import ServiceSettings
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.names import check_id

_GIB = 1024**3


class RuntimeSettings(ServiceSettings):
    """What a runtime can be told beyond what every service can."""

    # The runtime's name in the fleet; empty for one made of host and process id.
    name: str = ""
    # Calls executed at the same time; 0 for one per core.
    slots: int = pydantic.Field(default=0, ge=0, le=1024)
    # Memory for models; 0 for half of what the process may use.
    memory_bytes: int = pydantic.Field(default=0, ge=0)
    # Where artifacts are kept; several runtimes may share it. They find their files again after a
    # restart.
    cache_dir: Path = pydantic.Field(
        default_factory=lambda: platformdirs.user_cache_path("stellwerk") / "artifacts"
    )
    disk_cache_bytes: int = pydantic.Field(default=10 * _GIB, gt=0)
    # "key=value,key=value"; a word alone stands for word=true. Models can require labels.
    labels: str = ""
    # Where models go that do not say: "auto" (CUDA where there is some), "cpu", "cuda" or "cuda:N".
    devices: str = pydantic.Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    # Load formats that run code of the artifact, such as pickle.
    allow_unsafe_formats: bool = False
    # Prefixes of the modules that safetensors weights may name, by comma.
    torch_modules: str = "torch.nn"
    # Rows that waiting requests are joined up to; 1 joins none.
    max_batch_rows: int = pydantic.Field(default=256, ge=1)
    # Memory for answers that are given again, of models whose owners say so; 0 keeps none.
    response_cache_bytes: int = pydantic.Field(default=64 * 1024**2, ge=0)

    @pydantic.field_validator("name")
    @classmethod
    def _name_is_an_id(cls, value: str) -> str:
        try:
            return check_id(value, "name") if value else value
        except ServiceError as exc:
            raise ValueError(exc.message) from None

    @pydantic.field_validator("labels")
    @classmethod
    def _labels_are_pairs(cls, value: str) -> str:
        parse_labels(value)
        return value


def parse_labels(text: str) -> dict[str, str]:
    """The labels of "key=value,key=value". Raises ValueError."""
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not key.strip():
            raise ValueError("labels are written key=value,key=value")
        labels[key.strip()] = value.strip() if equals else "true"
    return labels


def runtime_name(settings: RuntimeSettings) -> str:
    """The runtime's id in the fleet."""
    if settings.name:
        return settings.name
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")[:40] or "runtime"
    return f"{host}-{os.getpid()}"
