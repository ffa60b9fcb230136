"""The router's settings."""

from __future__ import annotations

import pydantic

from services.chassis.config import ServiceSettings


class RouterSettings(ServiceSettings):
    """The settings beside those of every service."""

    listen: str = "127.0.0.1:50052"
    # Seconds after which a runtime that is not heard from is not chosen any more …
    runtime_stale_seconds: float = pydantic.Field(default=8.0, gt=0)
    # … and after which it is taken out of the fleet.
    runtime_gone_seconds: float = pydantic.Field(default=30.0, gt=0)
    # Seconds without a request after which runtimes let a model go.
    model_idle_seconds: float = pydantic.Field(default=1800.0, gt=0)
    # Seconds after which a model name is resolved again, even if no event said that it changed.
    directory_seconds: float = pydantic.Field(default=30.0, gt=0)
    # Requests of one model that wait in the router: ten seconds' worth of a model that answers four
    # hundred a second.
    max_queued_per_model: int = pydantic.Field(default=4096, gt=0)
    # Requests of one tenant that wait in the router, for all models together.
    max_queued_per_tenant: int = pydantic.Field(default=2048, gt=0)
    # Bytes of all requests that wait in the router.
    max_queued_bytes: int = pydantic.Field(default=512 * 1024 * 1024, gt=0)
    # Requests with the broker for each slot of the ready runtimes, at most. Requests that are sent
    # can no longer be put in order.
    window_per_slot: int = pydantic.Field(default=128, gt=0)
    # Bytes of the tensors of one request together.
    max_input_bytes: int = pydantic.Field(default=48 * 1024 * 1024, gt=0)
