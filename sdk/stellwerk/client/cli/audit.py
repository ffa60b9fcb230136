"""`stellwerk audit …`"""

from __future__ import annotations

from typing import Annotated

import typer

from stellwerk.client.cli.context import Globals
from stellwerk.client.cli.output import when

app = typer.Typer(no_args_is_help=True, help="The audit ledger: who did what, and who was refused.")


@app.command("list")
def list_records(
    ctx: typer.Context,
    principal: Annotated[str, typer.Option(help="Only of this principal.")] = "",
    resource: Annotated[str, typer.Option(help="Only about this resource.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
) -> None:
    """List the newest records."""
    options = Globals.of(ctx)
    found = options.client.audit.list(principal=principal, resource=resource, limit=limit)
    rows = [
        (
            record.sequence,
            when(record, "time"),
            type(record).Kind.Name(record.kind).removeprefix("KIND_").lower(),
            record.principal or "unknown",
            record.method.rpartition("/")[2],
            record.resource,
            record.outcome,
        )
        for record in found
    ]
    columns = ("NUMBER", "TIME", "KIND", "WHO", "CALL", "RESOURCE", "OUTCOME")
    options.output.table(found, columns, rows, "no records")


@app.command()
def verify(
    ctx: typer.Context,
    sequence: Annotated[
        int, typer.Option(min=0, help="A record's number, kept from an earlier check.")
    ] = 0,
    hash: Annotated[str, typer.Option(help="That record's hash.")] = "",
) -> None:
    """Recompute the chain. Exit code 1 if it is broken."""
    options = Globals.of(ctx)
    found = options.client.audit.verify(expected_sequence=sequence, expected_hash=hash)
    sentence = (
        f"intact: {found.checked} records; the last is {found.last_sequence} {found.last_hash}"
        if found.intact
        else f"BROKEN at record {found.first_bad_sequence}: {found.problem}"
    )
    options.output.show(found, lambda: options.output.line(sentence))
    if not found.intact:
        raise typer.Exit(1)
