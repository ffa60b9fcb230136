"""`stellwerk audit …`"""

from __future__ import annotations

import click

from stellwerk.client.cli.context import GlobalOptions, pass_options
from stellwerk.client.cli.output import when


@click.group("audit", no_args_is_help=True)
def app() -> None:
    """The audit ledger: who did what, and who was refused."""


@app.command("list")
@click.option("--principal", default="", help="Only records of this principal.")
@click.option("--resource", default="", help="Only records about this resource.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="The number of records, at most.",
)
@pass_options
def list_records(options: GlobalOptions, principal: str, resource: str, limit: int) -> None:
    """List the newest records."""
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
@click.option(
    "--sequence",
    type=click.IntRange(min=0),
    default=0,
    help="The number of a record, kept from an earlier check.",
)
@click.option("--hash", default="", help="The hash of that record.")
@pass_options
def verify(options: GlobalOptions, sequence: int, hash: str) -> None:
    """Recompute the hash chain of the ledger. Exit code 1 if it is broken."""
    found = options.client.audit.verify(expected_sequence=sequence, expected_hash=hash)
    sentence = (
        f"intact: {found.checked} records; the last is {found.last_sequence} {found.last_hash}"
        if found.intact
        else f"BROKEN at record {found.first_bad_sequence}: {found.problem}"
    )
    options.output.show(found, lambda: options.output.line(sentence))
    if not found.intact:
        raise click.exceptions.Exit(1)
