"""The root of the command: global options, which may stand anywhere, and errors told in one
sentence.
"""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stellwerk.client.cli import access, audit, buckets, models, platform, predict
from stellwerk.client.cli.context import Globals

# Global options that people also write after the command, and how many values each takes.
_ANYWHERE = {"--json": 0, "--url": 1, "--token": 1, "--bucket": 1}
# These commands have options of their own that are not ours to move.
_HANDED_ON = ("up", "local", "conformance")


class RootGroup(TyperGroup):
    """Tells the platform's errors as one sentence and exit code 1; takes global options from any
    place.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _globals_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Looked up here, so that `--help` does not wait for gRPC.
            from stellwerk.client.errors import ServiceError

            if not isinstance(error, ServiceError):
                raise
            Globals.of(ctx).output.error(error)
            raise typer.Exit(1) from None


def _globals_first(args: list[str]) -> list[str]:
    moved: list[str] = []
    kept: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if word == "--" or (word in _HANDED_ON and not kept):
            kept += [word, *rest]
            break
        if name in _ANYWHERE:
            values = _ANYWHERE[name] if not equals else 0
            moved += [word, *rest[:values]]
            rest = rest[values:]
        else:
            kept.append(word)
    return moved + kept


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stellwerk {metadata.version('stellwerk')}")
        raise typer.Exit


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Stellwerk: store models, call them, and see what runs where.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar="STELLWERK_URL", help="The platform, http(s)://… or grpc(s)://…"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="STELLWERK_TOKEN", show_envvar=True, help="An access token or API key."
        ),
    ] = None,
    bucket: Annotated[
        str, typer.Option(help="The bucket of models named without one.")
    ] = "default",
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a call may take.")] = 30.0,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    ctx.obj = Globals(url=url, token=token, bucket=bucket, as_json=json, timeout=timeout)


_HAND_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
}


@app.command("up", help="Run the whole platform on this machine.", **_HAND_ON)
def up(ctx: typer.Context) -> None:
    from services.local.cli import app as local_app

    local_app(args=["up", *ctx.args], prog_name="stellwerk")


@app.command("local", help="Prepare this machine to run the platform.", **_HAND_ON)
def local(ctx: typer.Context) -> None:
    from services.local.cli import app as local_app

    local_app(args=ctx.args, prog_name="stellwerk local")


@app.command(
    "conformance", help="Check any server against the Open Inference Protocol.", **_HAND_ON
)
def conformance(ctx: typer.Context) -> None:
    from stellwerk.conformance.cli import app as conformance_app

    conformance_app(args=ctx.args, prog_name="stellwerk conformance")


app.command("status")(platform.status)
app.command("runtimes")(platform.runtimes)
app.command("predict")(predict.predict)
app.add_typer(models.app, name="models")
app.add_typer(buckets.app, name="buckets")
app.add_typer(access.token_app, name="token")
app.add_typer(access.keys_app, name="keys")
app.add_typer(access.principals_app, name="principals")
app.add_typer(audit.app, name="audit")
