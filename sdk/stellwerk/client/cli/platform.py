"""`stellwerk status` and `stellwerk runtimes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from stellwerk.client.cli.context import Globals
from stellwerk.client.cli.output import pairs, size

if TYPE_CHECKING:
    from stellwerk.controlplane.v1.controlplane_service_pb2 import GetStatusResponse


def status(ctx: typer.Context) -> None:
    """Show whether the platform is ready and, if not, why. Exit code 1 if it is not."""
    options = Globals.of(ctx)
    found = options.client.status()
    options.output.show(found, lambda: _print_status(options, found))
    if not found.ready:
        raise typer.Exit(1)


def runtimes(ctx: typer.Context) -> None:
    """List the runtimes: what they have and what they serve."""
    options = Globals.of(ctx)
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


def _runtime_row(entry: Any) -> tuple[object, ...]:
    state = "draining" if entry.draining else "stale" if entry.stale else "ready"
    return (
        entry.name.removeprefix("runtimes/"),
        entry.cpu_cores,
        size(entry.memory_bytes),
        ", ".join(device.name or device.kind for device in entry.accelerators) or "none",
        pairs(entry.labels),
        " ".join(entry.formats),
        len(entry.models),
        entry.in_flight,
        state,
    )


def _print_status(options: Globals, found: GetStatusResponse) -> None:
    output = options.output
    output.line("the platform is ready" if found.ready else "the platform is NOT ready")
    for reason in found.reasons:
        output.line(f"  - {reason}")
    rows = [
        (
            s.service,
            s.instance,
            s.version,
            "ready" if s.ready else "not ready",
            "; ".join(s.reasons),
        )
        for s in found.services
    ]
    output.table(
        None, ("SERVICE", "INSTANCE", "VERSION", "STATE", "REASON"), rows, "no service is known"
    )
    output.line(
        f"broker: {found.broker or 'unknown'}; runtimes: {len(found.runtimes)}; queues:"
        f" {len(found.queues)}"
    )
    for queue in found.queues:
        output.line(
            f"  {queue.name}: {queue.messages} waiting, {queue.pending} pending, {queue.consumers}"
            " consumers"
        )
