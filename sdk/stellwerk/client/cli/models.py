"""`stellwerk models …`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stellwerk.client.cli.context import Globals, complete_model
from stellwerk.client.cli.output import pairs, size, when

if TYPE_CHECKING:
    from stellwerk.repository.v1.repository_service_pb2 import ModelVersion

app = typer.Typer(no_args_is_help=True, help="Models: stored, versioned, promoted.")
Name = Annotated[
    str, typer.Argument(help="The model, as iris or bucket/iris.", autocompletion=complete_model)
]
Version = Annotated[int | None, typer.Option("--version", min=1, help="A version's number.")]
Alias = Annotated[str | None, typer.Option("--alias", help="An alias, such as production.")]
Pairs = Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")]


@app.command("list")
def list_models(
    ctx: typer.Context,
    filter: Annotated[
        str, typer.Option(help='Such as: name = "ir*" AND labels.stage = "test"')
    ] = "",
) -> None:
    """List the models of the bucket."""
    options = Globals.of(ctx)
    found = options.client.models.list(filter)
    from stellwerk.client.naming import short_name

    rows = [
        (
            short_name(m.name),
            m.latest_version,
            m.format,
            pairs(m.aliases),
            pairs(m.labels),
            when(m, "update_time"),
        )
        for m in found
    ]
    columns = ("MODEL", "LATEST", "FORMAT", "ALIASES", "LABELS", "CHANGED")
    options.output.table(found, columns, rows, f"no models in bucket {options.bucket}")


@app.command()
def show(ctx: typer.Context, name: Name, version: Version = None, alias: Alias = None) -> None:
    """Show a version: what it takes, gives and needs."""
    options = Globals.of(ctx)
    found = options.client.models.describe(name, version=version, alias=alias)
    options.output.facts(found, _facts(found))


@app.command()
def versions(ctx: typer.Context, name: Name) -> None:
    """List the versions of a model, newest first."""
    options = Globals.of(ctx)
    found = options.client.models.versions(name)
    rows = [
        (
            v.version,
            v.format,
            size(v.size_bytes),
            v.creator,
            when(v, "create_time"),
            pairs(v.labels),
        )
        for v in found
    ]
    columns = ("VERSION", "FORMAT", "SIZE", "STORED BY", "STORED", "LABELS")
    options.output.table(found, columns, rows, f"{name} has no versions")


@app.command()
def put(
    ctx: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="A .skops, .onnx, .pt2 or .safetensors file.", dir_okay=False)
    ],
    name: Name,
    format: Annotated[
        str | None, typer.Option(help="The format, if the ending does not tell.")
    ] = None,
    label: Pairs = None,
    meta: Pairs = None,
    option: Pairs = None,
    serving: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "How it is served, such as max_batch_size=32 or response_cache=true; may be"
                " repeated."
            )
        ),
    ] = None,
    description: str = "",
    alias: Alias = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Allow a format that runs code when loaded.")
    ] = False,
) -> None:
    """Store a file as the next version of a model."""
    from stellwerk.client.resources.requirements import parse_pairs

    options = Globals.of(ctx)
    with options.output.transfer(f"storing {path.name}") as progress:
        stored = options.client.models.put(
            path,
            name,
            format=format,
            labels=parse_pairs(label),
            metadata=parse_pairs(meta),
            options=parse_pairs(option),
            serving=parse_pairs(serving),
            description=description,
            alias=alias,
            unsafe=unsafe,
            progress=progress,
        )
    options.output.show(stored, lambda: options.output.line(stored.name))


@app.command()
def get(
    ctx: typer.Context,
    name: Name,
    path: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)],
    version: Version = None,
    alias: Alias = None,
) -> None:
    """Write a model's artifact to a file."""
    options = Globals.of(ctx)
    with options.output.transfer(f"getting {name}") as progress:
        written = options.client.models.download(
            name, path, version=version, alias=alias, progress=progress
        )
    options.output.show({"path": str(written)}, lambda: options.output.line(str(written)))


@app.command()
def drop(
    ctx: typer.Context,
    name: Name,
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a version, or a model with all its versions."""
    options = Globals.of(ctx)
    what = name if version is None else f"version {version} of {name}"
    if not yes:
        typer.confirm(f"Delete {what} for good?", abort=True, err=True)
    options.client.models.drop(name, version=version)
    options.output.show({"deleted": what}, lambda: options.output.line(f"deleted {what}"))


@app.command()
def promote(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    alias: Annotated[str, typer.Option("--alias", help="The alias to move.")] = "production",
) -> None:
    """Point an alias at a version."""
    options = Globals.of(ctx)
    moved = options.client.models.promote(name, version, alias)
    options.output.show(
        moved, lambda: options.output.line(f"{name}: {alias} is version {moved.version}")
    )


@app.command()
def aliases(ctx: typer.Context, name: Name) -> None:
    """List the aliases of a model."""
    options = Globals.of(ctx)
    found = options.client.models.aliases(name)
    rows = [
        (a.name.rpartition("/")[2], a.version, a.updater, when(a, "update_time")) for a in found
    ]
    options.output.table(
        found, ("ALIAS", "VERSION", "MOVED BY", "MOVED"), rows, f"{name} has no aliases"
    )


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
