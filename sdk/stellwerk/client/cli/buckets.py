"""`stellwerk buckets …`"""

from __future__ import annotations

import click

from stellwerk.client.cli.context import GlobalOptions, pass_options
from stellwerk.client.cli.output import when


@click.group("buckets", no_args_is_help=True)
def app() -> None:
    """Buckets, the unit that access is granted on."""


@app.command("list")
@pass_options
def list_buckets(options: GlobalOptions) -> None:
    """List the buckets you may see."""
    found = options.client.buckets.list()
    rows = [
        (
            bucket.name.removeprefix("buckets/"),
            bucket.description,
            bucket.creator,
            when(bucket, "create_time"),
        )
        for bucket in found
    ]
    columns = ("BUCKET", "DESCRIPTION", "CREATED BY", "CREATED")
    options.output.table(found, columns, rows, "no buckets")


@app.command()
@click.argument("bucket")
@click.option("--description", default="", help="A sentence for people.")
@pass_options
def create(options: GlobalOptions, bucket: str, description: str) -> None:
    """Create a bucket."""
    created = options.client.buckets.create(bucket, description=description)
    options.output.show(created, lambda: options.output.line(f"created bucket {bucket}"))


@app.command()
@click.argument("bucket")
@pass_options
def drop(options: GlobalOptions, bucket: str) -> None:
    """Delete a bucket that holds no models."""
    options.client.buckets.drop(bucket)
    options.output.show(
        {"deleted": bucket}, lambda: options.output.line(f"deleted bucket {bucket}")
    )
