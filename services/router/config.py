"""What the router can be told."""

from __future__ import annotations

import pydantic

from services.chassis.config import ServiceSettings


class RouterSettings(ServiceSettings):
    """Besides what every service can be told."""

    listen: str = "127.0.0.1:50052"
    # A runtime not heard of for this long is not chosen any more …
    runtime_stale_seconds: float = pydantic.Field(default=8.0, gt=0)
    # … and for this long is taken out of the fleet.
    runtime_gone_seconds: float = pydantic.Field(default=30.0, gt=0)
    # A model nobody asked for in this time is let go by its runtimes.
    model_idle_seconds: float = pydantic.Field(default=1800.0, gt=0)
    # What a name means is asked again after this long, even when no event said that it changed.
    directory_seconds: float = pydantic.Field(default=30.0, gt=0)
    # Requests of one model that wait here: ten seconds' worth of a model that answers four hundred
    # a second.
    max_queued_per_model: int = pydantic.Field(default=4096, gt=0)
    # Requests of one tenant that wait here, for all models together.
    max_queued_per_tenant: int = pydantic.Field(default=2048, gt=0)
    # Bytes of all the requests that wait here.
    max_queued_bytes: int = pydantic.Field(default=512 * 1024 * 1024, gt=0)
    # Requests with the broker for each slot of the ready runtimes; what is sent can no longer be
    # put in order.
    window_per_slot: int = pydantic.Field(default=128, gt=0)
    # A request's tensors together.
    max_input_bytes: int = pydantic.Field(default=48 * 1024 * 1024, gt=0)
