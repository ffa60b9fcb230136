"""`stellwerk buckets …`"""

from __future__ import annotations

from typing import Annotated

import typer

from stellwerk.client.cli.context import Globals
from stellwerk.client.cli.output import when

app = typer.Typer(no_args_is_help=True, help="Buckets, the unit that access is granted on.")
Bucket = Annotated[str, typer.Argument(help="The bucket.")]


@app.command("list")
def list_buckets(ctx: typer.Context) -> None:
    """List the buckets you may see."""
    options = Globals.of(ctx)
    found = options.client.buckets.list()
    rows = [
        (b.name.removeprefix("buckets/"), b.description, b.creator, when(b, "create_time"))
        for b in found
    ]
    options.output.table(
        found, ("BUCKET", "DESCRIPTION", "CREATED BY", "CREATED"), rows, "no buckets"
    )


@app.command()
def create(ctx: typer.Context, bucket: Bucket, description: str = "") -> None:
    """Create a bucket."""
    options = Globals.of(ctx)
    created = options.client.buckets.create(bucket, description=description)
    options.output.show(created, lambda: options.output.line(f"created bucket {bucket}"))


@app.command()
def drop(ctx: typer.Context, bucket: Bucket) -> None:
    """Delete a bucket that holds no models."""
    options = Globals.of(ctx)
    options.client.buckets.drop(bucket)
    options.output.show(
        {"deleted": bucket}, lambda: options.output.line(f"deleted bucket {bucket}")
    )
