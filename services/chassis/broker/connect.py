"""Chooses the adapter by the broker's URL; nothing above this line knows which one it is."""

from __future__ import annotations

from typing import Any

from services.chassis.broker.amqp.broker import AmqpBroker
from services.chassis.broker.port import Broker
from services.chassis.broker.pull.broker import PullBroker
from services.chassis.broker.pull.hub import Hub
from services.chassis.broker.pull.hub_broker import HubBroker

PULL = "pull"


def open_broker(url: str, *, channel: Any = None, hub: Hub | None = None, name: str = "") -> Broker:
    """A broker that is not started yet.

    `url` is amqp://…, amqps://… or "pull"; for the latter either the hub that this process hosts or
    a service channel to the router that does. `name` says on the broker's side whose connection it
    is.
    """
    if url != PULL:
        return AmqpBroker(url, name=name)
    if hub is not None:
        return HubBroker(hub)
    return PullBroker(channel)
