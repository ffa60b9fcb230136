"""`stellwerk conformance`: checks any server of the Open Inference Protocol, case by case, and
prints a report.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import click

# The exit codes.
FAILED, UNREACHABLE = 1, 2


class Format(StrEnum):
    """The forms of a report."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class Server(StrEnum):
    """The servers that model files can be written for."""

    TRITON = "triton"
    MLSERVER = "mlserver"
    ONNX = "onnx"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", required=False)
@click.option("--grpc", help="The server's gRPC address, host:port; grpcs://… for TLS.")
@click.option(
    "--model", help="A model that echoes FP32 [-1, -1], if its name is not conformance_echo_fp32."
)
@click.option(
    "--token",
    help="A bearer token. The environment's is not used: the server may be anybody's.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds the token.",
)
@click.option(
    "--only", default="", help="Only cases with this in their name or area; * and ? may be used."
)
@click.option(
    "--extensions/--core-only",
    default=True,
    show_default=True,
    help="With the extensions that the server advertises or answers, or without any.",
)
@click.option(
    "--format",
    type=click.Choice(Format, case_sensitive=False),
    default=Format.TEXT,
    show_default=True,
    help="The form of the report.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of the report, instead of the terminal.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="Seconds that one call may take.",
)
@click.option(
    "--prepare",
    is_flag=True,
    help="First store the models in the server, a Stellwerk platform; needs models.write.",
)
@click.option(
    "--pickles",
    is_flag=True,
    help="With --prepare: also the decoupled model, a pickle; the platform must allow pickles.",
)
@click.option(
    "--write-models",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the models for another server into this folder, and end.",
)
@click.option(
    "--for",
    "server",
    type=click.Choice(Server, case_sensitive=False),
    default=Server.TRITON,
    show_default=True,
    help="The server that --write-models writes for.",
)
@click.option("--list", "list_cases", is_flag=True, help="List the cases and the models, and end.")
def app(
    url: str | None,
    grpc: str | None,
    token: str | None,
    token_file: Path | None,
    prepare: bool,
    pickles: bool,
    write_models: Path | None,
    server: Server,
    list_cases: bool,
    format: Format,
    output: Path | None,
    **chosen: Any,
) -> None:
    """Check a server against the Open Inference Protocol.

    URL is the server's REST address, such as http://host:8000. The server is called with models of
    known behaviour, whose names begin with conformance_; cases whose model it lacks are skipped.
    Store them with --prepare, or write them out with --write-models.

    Exit code 0 if nothing failed, 1 if something did, 2 if the server cannot be reached.
    """
    if write_models is not None:
        _write(write_models, server)
    elif list_cases:
        _list(chosen["only"])
    elif url is None and grpc is None:
        raise click.BadParameter("give the address of a server", param_hint="URL")
    else:
        secret = token or (token_file.read_text().strip() if token_file else None)
        if prepare:
            _prepare(url, secret, pickles)
        report = _check(url, grpc, secret, **chosen)
        _show(report, format, output)
        raise click.exceptions.Exit(FAILED if report.failed else 0)


def _write(folder: Path, server: Server) -> None:
    from importlib import import_module

    module = "onnx_graphs" if server is Server.ONNX else str(server)
    names = import_module(f"stellwerk.conformance.models.{module}").write(folder)
    click.echo(f"{len(names)} models in {folder}: {', '.join(names)}")


def _list(only: str) -> None:
    from stellwerk.conformance.cases.catalogue import all_cases
    from stellwerk.conformance.models.definitions import MODELS
    from stellwerk.conformance.suite import chosen

    for case in chosen(all_cases(), only):
        click.echo(f"{case.name}  [{case.basis}] {case.title}")
    for known in MODELS.values():
        click.echo(f"{known.name}: {known.behaviour}, for {known.needed_for}")


def _prepare(url: str | None, token: str | None, pickles: bool) -> None:
    from stellwerk.client.errors import ServiceError
    from stellwerk.conformance.models.definitions import MODELS
    from stellwerk.conformance.prepare import prepare

    if url is None:
        raise click.BadParameter("--prepare needs the platform's REST address", param_hint="URL")
    try:
        prepare(url, token, _stored, pickles=pickles)
    except ServiceError as exc:
        click.echo(f"error: {exc}", err=True)
        raise click.exceptions.Exit(UNREACHABLE) from exc
    if not pickles:
        name = MODELS["count_up"].name
        click.echo(f"not stored: {name}, a pickle; --pickles stores it too", err=True)


def _stored(name: str, new: bool) -> None:
    click.echo(f"{'stored' if new else 'there already'}: {name}", err=True)


def _check(
    url: str | None,
    grpc: str | None,
    token: str | None,
    *,
    model: str | None,
    only: str,
    extensions: bool,
    timeout: float,
) -> Any:
    from stellwerk.conformance import Options, check
    from stellwerk.conformance.server.subject import Unreachable

    names = {"echo_fp32": model} if model else {}
    options = Options(
        url, grpc, token, names=names, only=only, extensions=extensions, timeout=timeout
    )
    try:
        return check(options, progress=_progress if sys.stderr.isatty() else None)
    except Unreachable as exc:
        click.echo(f"error: {exc}", err=True)
        raise click.exceptions.Exit(UNREACHABLE) from exc


def _progress(done: int, total: int, name: str) -> None:
    ending = "\r" if done < total else "\r\033[K"
    sys.stderr.write(f"\033[K{done}/{total} {name[:60]}{ending}" if done < total else ending)
    sys.stderr.flush()


def _show(report: Any, format: Format, output: Path | None) -> None:
    from stellwerk.conformance.reporting.markdown import as_markdown
    from stellwerk.conformance.reporting.report import as_json, as_text, sentence

    text = {Format.TEXT: as_text, Format.JSON: as_json, Format.MARKDOWN: as_markdown}[format](
        report
    )
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text)
        click.echo(f"{sentence(report.counts())}; the report is in {output}", err=True)
