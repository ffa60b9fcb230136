"""`stellwerk status` and `stellwerk runtimes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stellwerk.client.cli.context import GlobalOptions, pass_options
from stellwerk.client.cli.output import Output, pairs, size

if TYPE_CHECKING:
    from stellwerk.controlplane.v1.controlplane_service_pb2 import GetStatusResponse
    from stellwerk.router.v1.router_service_pb2 import Runtime


@click.command()
@pass_options
def status(options: GlobalOptions) -> None:
    """Show whether the platform is ready and, if not, why. Exit code 1 if it is not."""
    found = options.client.status()
    options.output.show(found, lambda: _print_status(options.output, found))
    if not found.ready:
        raise click.exceptions.Exit(1)


@click.command()
@pass_options
def runtimes(options: GlobalOptions) -> None:
    """List the runtimes: what they have and what they serve."""
    found = options.client.runtimes()
    columns = (
        "RUNTIME",
        "CORES",
        "MEMORY",
        "ACCELERATORS",
        "LABELS",
        "FORMATS",
        "MODELS",
        "IN HAND",
        "STATE",
    )
    options.output.table(
        found, columns, [_runtime_row(entry) for entry in found], "no runtime is attached"
    )


def _runtime_row(entry: Runtime) -> tuple[object, ...]:
    return (
        entry.name.removeprefix("runtimes/"),
        entry.cpu_cores,
        size(entry.memory_bytes),
        ", ".join(device.name or device.kind for device in entry.accelerators) or "none",
        pairs(entry.labels),
        " ".join(entry.formats),
        len(entry.models),
        entry.in_flight,
        _state(entry),
    )


def _state(entry: Runtime) -> str:
    return "draining" if entry.draining else "stale" if entry.stale else "ready"


def _print_status(output: Output, found: GetStatusResponse) -> None:
    output.line("the platform is ready" if found.ready else "the platform is NOT ready")
    for reason in found.reasons:
        output.line(f"  - {reason}")
    rows = [
        (
            service.service,
            service.instance,
            service.version,
            "ready" if service.ready else "not ready",
            "; ".join(service.reasons),
        )
        for service in found.services
    ]
    for entry in found.runtimes:
        rows.append(("runtime", entry.name.removeprefix("runtimes/"), "", _state(entry), ""))
    output.print_table(("SERVICE", "INSTANCE", "VERSION", "STATE", "REASON"), rows)
    output.line(f"broker: {found.broker or 'unknown'}; queues: {len(found.queues)}")
    for queue in found.queues:
        output.line(
            f"  {queue.name}: {queue.messages} waiting, {queue.pending} pending,"
            f" {queue.consumers} consumers"
        )
