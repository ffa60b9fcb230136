"""The router's composition root."""

from __future__ import annotations

from services.chassis.broker.pull.hub import Hub
from services.chassis.lifecycle.process import Process
from services.router import rpcs
from services.router.calls.invocations import Predictions
from services.router.config import RouterSettings
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.metrics import DispatchMetrics
from services.router.fleet.reconciler import Serving
from services.router.fleet.registry import Fleet
from services.router.naming.directory import ModelDirectory
from services.router.queueing.admission import Limits
from services.router.queueing.pending_requests import PendingTable
from services.router.rpcs import Parts
from stellwerk.wire import topology


def compose(settings: RouterSettings) -> Process:
    """Everything the router is made of."""
    process = Process("router", settings)
    hub = Hub() if settings.broker.get_secret_value() == "pull" else None
    broker = process.open_broker(hub=hub)
    pending = PendingTable()
    fleet = Fleet(settings.runtime_stale_seconds, settings.runtime_gone_seconds)
    dispatcher = Dispatcher(
        broker,
        pending,
        process.instance,
        process.log,
        slots=fleet.slots,
        limits=Limits.of(settings),
        metrics=DispatchMetrics(process.metrics),
    )
    serving = Serving(fleet, pending, settings.model_idle_seconds, dispatcher.idle)
    directory = ModelDirectory(
        process.channel("repository", settings.repository), settings.directory_seconds
    )
    predictions = Predictions(directory, serving, dispatcher, settings.max_input_bytes)

    rpcs.bind(process, Parts(predictions, serving, dispatcher, pending, broker))
    if hub is not None:
        rpcs.bind_hub(process, hub)

    async def subscribe() -> None:
        await broker.subscribe(topology.REPOSITORY_EVENTS, directory.on_event)
        broker.on_lost(lambda _: directory.clear())

    process.on_drain(serving.release)
    process.background("answers", dispatcher.listen)
    process.background("events", subscribe)
    process.background("fleet", serving.run)
    return process
