"""Defines the runtime's settings."""

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
    """The settings of a runtime, beside those of every service."""

    # The runtime's name in the fleet; empty for a name made of the host and the process id.
    name: str = ""
    # Model calls at a time; 0 for one per core.
    slots: int = pydantic.Field(default=0, ge=0, le=1024)
    # Bytes of memory for models; 0 for half of what the process may use.
    memory_bytes: int = pydantic.Field(default=0, ge=0)
    # Folder of cached artifacts, found again after a restart; several runtimes may share it.
    cache_dir: Path = pydantic.Field(
        default_factory=lambda: platformdirs.user_cache_path("stellwerk") / "artifacts"
    )
    # Bytes of disk for cached artifacts.
    disk_cache_bytes: int = pydantic.Field(default=10 * _GIB, gt=0)
    # Labels that models can require, as "key=value,key=value"; a word alone stands for word=true.
    labels: str = ""
    # Device of models that require none: "auto" (CUDA if there is any), "cpu", "cuda" or "cuda:N".
    devices: str = pydantic.Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    # Whether to load formats that run code of the artifact, such as pickle.
    allow_unsafe_formats: bool = False
    # Prefixes of the modules that safetensors weights may name, separated by commas.
    torch_modules: str = "torch.nn"
    # Rows of a model call up to which waiting requests share it; 1 for one request per call.
    max_batch_rows: int = pydantic.Field(default=256, ge=1)
    # Bytes of memory for cached responses, of models whose owners allow it; 0 keeps none.
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

    @property
    def resource_name(self) -> str:
        """The runtime's resource name in the fleet, such as "runtimes/west-1"."""
        if self.name:
            return f"runtimes/{self.name}"
        host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")[:40] or "runtime"
        return f"runtimes/{host}-{os.getpid()}"

    @property
    def allowed_torch_modules(self) -> tuple[str, ...]:
        """The prefixes in `torch_modules`."""
        return tuple(part.strip() for part in self.torch_modules.split(",") if part.strip())


def parse_labels(text: str) -> dict[str, str]:
    """Returns the labels in "key=value,key=value". Raises ValueError for a label without a key."""
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not key.strip():
            raise ValueError("labels are written key=value,key=value")
        labels[key.strip()] = value.strip() if equals else "true"
    return labels
