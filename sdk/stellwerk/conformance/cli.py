"""`stellwerk conformance`: checks any server of the Open Inference Protocol, case by case, and
prints a report.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

# The exit codes.
FAILED, UNREACHABLE = 1, 2


class Format(StrEnum):
    """What the report looks like."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class Server(StrEnum):
    """Whom model files are written for."""

    TRITON = "triton"
    MLSERVER = "mlserver"
    ONNX = "onnx"


app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def conformance(
    url: Annotated[str | None, typer.Argument(help="The server's REST address, such as http://host:8000.")] = None,
    grpc: Annotated[str | None, typer.Option(help="The server's gRPC address, host:port; grpcs://… for TLS.")] = None,
    model: Annotated[str | None, typer.Option(help="The name of a model that echoes FP32 [-1, -1], "
                                                   "if not conformance_echo_fp32.")] = None,
    token: Annotated[str | None, typer.Option(help="A bearer token. None is taken from the environment: "
                                                   "the server may be anybody's.")] = None,
    token_file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A file that holds it.")] = None,
    only: Annotated[str, typer.Option(help="Only cases whose name or area has this in it; * and ? may be used.")] = "",
    extensions: Annotated[bool, typer.Option("--extensions/--core-only", help="With the extensions that the server "
                                             "advertises or answers, or without any.")] = True,
    format: Annotated[Format, typer.Option(help="What the report looks like.")] = Format.TEXT,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Where it goes, instead of the terminal.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one call may take.")] = 20.0,
    prepare: Annotated[bool, typer.Option(help="First store the models in the server, which is a Stellwerk platform; "
                                               "the token needs models.write.")] = False,
    pickles: Annotated[bool, typer.Option("--pickles", help="With --prepare: the decoupled model too, a pickle; "
                                          "the platform must allow that.")] = False,
    write_models: Annotated[Path | None, typer.Option(file_okay=False, help="Write the models for another server into "
                                                      "this folder, and end.")] = None,
    server: Annotated[Server, typer.Option("--for", help="The server that --write-models writes for.")] = Server.TRITON,
    list_cases: Annotated[bool, typer.Option("--list", help="List the cases and the models, and end.")] = False,
) -> None:  # fmt: skip
    """Check a server against the Open Inference Protocol.

    The server is called with models of known behaviour, whose names begin with conformance_; cases
    whose model it lacks are skipped. Store them with --prepare, or write them out with
    --write-models.

    Exit code 0 if nothing failed, 1 if something did, 2 if the server cannot be reached.
    """
    if write_models is not None:
        _write(write_models, server)
    elif list_cases:
        _list(only)
    elif url is None and grpc is None:
        raise typer.BadParameter("give the address of a server", param_hint="URL")
    else:
        secret = token or (token_file.read_text().strip() if token_file else None)
        if prepare:
            _prepare(url, secret, pickles)
        report = _check(url, grpc, secret, model, only, extensions, timeout)
        _show(report, format, output)
        raise typer.Exit(FAILED if report.failed else 0)


def _write(folder: Path, server: Server) -> None:
    from importlib import import_module

    module = "onnx_graphs" if server is Server.ONNX else str(server)
    names = import_module(f"stellwerk.conformance.models.{module}").write(folder)
    typer.echo(f"{len(names)} models in {folder}: {', '.join(names)}")


def _list(only: str) -> None:
    from stellwerk.conformance.cases import all_cases
    from stellwerk.conformance.models import MODELS
    from stellwerk.conformance.run import chosen

    for case in chosen(all_cases(), only):
        typer.echo(f"{case.name}  [{case.basis}] {case.title}")
    for known in MODELS.values():
        typer.echo(f"{known.name}: {known.behaviour}, for {known.needed_for}")


def _prepare(url: str | None, token: str | None, pickles: bool) -> None:
    from stellwerk.client.errors import ServiceError
    from stellwerk.conformance.prepare import prepare

    if url is None:
        raise typer.BadParameter("--prepare needs the platform's REST address", param_hint="URL")
    try:
        prepare(url, token, _stored, pickles=pickles)
    except ServiceError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(UNREACHABLE) from exc


def _stored(name: str, new: bool) -> None:
    typer.echo(f"{'stored' if new else 'there already'}: {name}", err=True)


def _check(
    url: str | None,
    grpc: str | None,
    token: str | None,
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
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(UNREACHABLE) from exc


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
        typer.echo(f"{sentence(report.counts())}; the report is in {output}", err=True)
