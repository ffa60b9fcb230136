"""`stellwerk models …`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stellwerk.client.cli.context import (
    GlobalOptions,
    alias_option,
    model_argument,
    pass_options,
    version_option,
)
from stellwerk.client.cli.output import pairs, size, when

if TYPE_CHECKING:
    from stellwerk.repository.v1.repository_service_pb2 import ModelVersion

_PAIRS = "key=value; repeatable."
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("models", no_args_is_help=True)
def app() -> None:
    """Models: stored, versioned, promoted."""


@app.command("list")
@click.option("--filter", default="", help='Such as: name = "ir*" AND labels.stage = "test"')
@pass_options
def list_models(options: GlobalOptions, filter: str) -> None:
    """List the models of the bucket."""
    from stellwerk.client.naming import short_name

    found = options.client.models.list(filter)
    rows = [
        (
            short_name(model.name),
            model.latest_version,
            model.format,
            pairs(model.aliases),
            pairs(model.labels),
            when(model, "update_time"),
        )
        for model in found
    ]
    columns = ("MODEL", "LATEST", "FORMAT", "ALIASES", "LABELS", "CHANGED")
    options.output.table(found, columns, rows, f"no models in bucket {options.bucket}")


@app.command()
@model_argument
@version_option
@alias_option
@pass_options
def show(options: GlobalOptions, name: str, version: int | None, alias: str | None) -> None:
    """Show a version: what it takes, gives and needs."""
    found = options.client.models.describe(name, version=version, alias=alias)
    options.output.facts(found, _facts(found))


@app.command()
@model_argument
@pass_options
def versions(options: GlobalOptions, name: str) -> None:
    """List the versions of a model, newest first."""
    found = options.client.models.versions(name)
    rows = [
        (
            version.version,
            version.format,
            size(version.size_bytes),
            version.creator,
            when(version, "create_time"),
            pairs(version.labels),
        )
        for version in found
    ]
    columns = ("VERSION", "FORMAT", "SIZE", "STORED BY", "STORED", "LABELS")
    options.output.table(found, columns, rows, f"{name} has no versions")


@app.command()
@click.argument("path", type=_FILE)
@model_argument
@click.option("--format", help="The format, if the ending of the file does not tell.")
@click.option("--label", "labels", multiple=True, help=_PAIRS)
@click.option("--meta", "metadata", multiple=True, help=_PAIRS)
@click.option("--option", "options", multiple=True, help=_PAIRS)
@click.option(
    "--serving",
    multiple=True,
    help="How it is served, such as max_batch_size=32 or response_cache=true; repeatable.",
)
@click.option("--description", default="", help="A sentence for people.")
@alias_option
@click.option("--unsafe", is_flag=True, help="Allow a format that runs code when loaded.")
@pass_options
def put(given: GlobalOptions, /, path: Path, name: str, **described: Any) -> None:
    """Store PATH, a .skops, .onnx, .pt2 or .safetensors file, as the next version of a model."""
    from stellwerk.client.resources.requirements import parse_pairs

    for key in ("labels", "metadata", "options", "serving"):
        described[key] = parse_pairs(described[key])
    with given.output.transfer(f"storing {path.name}") as progress:
        stored = given.client.models.put(path, name, progress=progress, **described)
    given.output.show(stored, lambda: given.output.line(stored.name))


@app.command()
@model_argument
@click.argument("path", type=_FILE)
@version_option
@alias_option
@pass_options
def get(
    options: GlobalOptions, name: str, path: Path, version: int | None, alias: str | None
) -> None:
    """Write a model's artifact to the file PATH."""
    with options.output.transfer(f"getting {name}") as progress:
        written = options.client.models.download(
            name, path, version=version, alias=alias, progress=progress
        )
    options.output.show({"path": str(written)}, lambda: options.output.line(str(written)))


@app.command()
@model_argument
@version_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@pass_options
def drop(options: GlobalOptions, name: str, version: int | None, yes: bool) -> None:
    """Delete a version, or a model with all its versions."""
    what = name if version is None else f"version {version} of {name}"
    if not yes:
        if options.as_json:
            raise click.UsageError("with --json nothing is asked; --yes deletes without asking")
        _confirm(f"Delete {what} for good?")
    options.client.models.drop(name, version=version)
    options.output.show({"deleted": what}, lambda: options.output.line(f"deleted {what}"))


def _confirm(question: str) -> None:
    """Asks on standard error. Raises Abort at "no", and a UsageError where nobody answers."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.UsageError("nobody answers here; --yes deletes without asking") from None
    if not agreed:
        raise click.Abort


@app.command()
@model_argument
@click.argument("version", type=click.IntRange(min=1))
@click.option("--alias", default="production", show_default=True, help="The alias to move.")
@pass_options
def promote(options: GlobalOptions, name: str, version: int, alias: str) -> None:
    """Point an alias at a version."""
    moved = options.client.models.promote(name, version, alias)
    options.output.show(
        moved, lambda: options.output.line(f"{name}: {alias} is version {moved.version}")
    )


@app.command()
@model_argument
@pass_options
def aliases(options: GlobalOptions, name: str) -> None:
    """List the aliases of a model."""
    found = options.client.models.aliases(name)
    rows = [
        (
            alias.name.rpartition("/")[2],
            alias.version,
            alias.updater,
            when(alias, "update_time"),
        )
        for alias in found
    ]
    columns = ("ALIAS", "VERSION", "MOVED BY", "MOVED")
    options.output.table(found, columns, rows, f"{name} has no aliases")


def _facts(version: ModelVersion) -> list[tuple[str, object]]:
    needs = {
        "accelerators": version.requires.accelerator_count,
        "memory": version.requires.memory_bytes and size(version.requires.memory_bytes),
        "cores": version.requires.cpu_cores,
        **version.requires.labels,
        **version.requires.frameworks,
    }
    return [
        ("version", version.name),
        ("format", version.format),
        ("size", size(version.size_bytes)),
        ("sha256", version.sha256),
        ("stored", f"{when(version, 'create_time')} by {version.creator}"),
        ("description", version.description),
        ("labels", pairs(version.labels)),
        ("metadata", pairs(version.metadata)),
        ("needs", pairs({key: value for key, value in needs.items() if value})),
        *(
            (entry.method, f"{_tensors(entry.inputs)} → {_tensors(entry.outputs)}")
            for entry in version.signature
        ),
    ]


def _tensors(specs: Any) -> str:
    return ", ".join(f"{spec.name}: {spec.datatype}{list(spec.shape)}" for spec in specs)
