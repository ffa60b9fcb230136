"""Chooses the broker's adapter by its URL. No other module knows which adapter is used."""

from __future__ import annotations

from typing import Any

from services.chassis.broker.amqp.broker import AmqpBroker
from services.chassis.broker.port import Broker
from services.chassis.broker.pull.broker import PullBroker
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker

# The URL that stands for the router's own queues.
PULL = "pull"


def open_broker(url: str, *, channel: Any = None, hub: Hub | None = None, name: str = "") -> Broker:
    """Returns a broker that is not started yet.

    `url` is amqp://…, amqps://… or "pull". For "pull" give the `hub` if this process hosts it, or
    else a service `channel` to the router that does. RabbitMQ shows `name` as the connection's.
    """
    if url != PULL:
        return AmqpBroker(url, name=name)
    if hub is not None:
        return HubBroker(hub)
    return PullBroker(channel)
