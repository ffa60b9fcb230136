"""The root of the command: global options, which may stand anywhere, and errors told in one
sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import click
from click.core import ParameterSource

from stellwerk.client.cli import access, audit, buckets, models, platform, predict
from stellwerk.client.cli.completion import completion_options
from stellwerk.client.cli.context import GlobalOptions, platform_options
from stellwerk.client.cli.output import error_as_json
from stellwerk.client.cli.platform_commands import local, up

# Global options that people also write after the command, with the number of their values.
_ANYWHERE = {
    "--json": 0,
    "--url": 1,
    "--data-dir": 1,
    "--token": 1,
    "--bucket": 1,
    "--timeout": 1,
}
# Commands with options of their own, which stay where they stand.
_HANDED_ON = ("up", "local", "conformance")


class RootGroup(click.Group):
    """A group that takes global options from any place, and prints an error of the platform as one
    sentence with exit code 1.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the words with the global options moved to the front."""
        with _usage_told(as_json="--json" in args):
            return super().parse_args(ctx, _globals_first(args))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; raises Exit(1) after it has printed an error of the platform."""
        try:
            with _usage_told(as_json=ctx.params["as_json"]):
                return super().invoke(ctx)
        except Exception as error:
            # Imported here, so that `--help` does not wait for gRPC.
            from stellwerk.client.errors import ServiceError

            if not isinstance(error, ServiceError):
                raise
            options: GlobalOptions = ctx.obj
            options.output.error(error)
            raise click.exceptions.Exit(1) from None


@contextmanager
def _usage_told(*, as_json: bool) -> Iterator[None]:
    """Prints wrong usage as JSON and ends with exit code 2, if that is wanted."""
    try:
        yield
    except click.UsageError as error:
        if not as_json:
            raise
        # A group without a command has its whole help as its message.
        bare = isinstance(error, click.exceptions.NoArgsIsHelpError)
        error_as_json("USAGE", "Missing command." if bare else error.format_message())
        raise click.exceptions.Exit(error.exit_code) from None


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
            if len(rest) < values:
                raise click.BadOptionUsage(name, f"Option '{name}' requires an argument.")
            moved += [word, *rest[:values]]
            rest = rest[values:]
        else:
            kept.append(word)
    return moved + kept


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"stellwerk {metadata.version('stellwerk')}")
        ctx.exit()


@click.group(
    cls=RootGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--url",
    envvar="STELLWERK_URL",
    show_envvar=True,
    help="The platform, http(s)://host:port or grpc(s)://…",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    help="Instead of --url: the data directory of a platform on this machine, whose token is then"
    " used as well.  [env var: STELLWERK_DATA_DIR]",
)
@click.option(
    "--token", envvar="STELLWERK_TOKEN", show_envvar=True, help="An access token or API key."
)
@click.option(
    "--bucket",
    default="default",
    show_default=True,
    help="The bucket of models named without one.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=30.0,
    show_default=True,
    help="Seconds that a call may take.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@completion_options
@click.pass_context
def app(
    ctx: click.Context,
    url: str | None,
    data_dir: str | None,
    token: str | None,
    bucket: str,
    as_json: bool,
    timeout: float,
) -> None:
    """Stellwerk: store models, call them, and see what runs where."""
    if ctx.invoked_subcommand in _HANDED_ON:
        _refuse_typed(ctx, ctx.invoked_subcommand)
    ctx.obj = GlobalOptions(*platform_options(ctx), token, bucket, as_json, timeout)


def _refuse_typed(ctx: click.Context, command: str) -> None:
    """Raises UsageError if a global option is typed before a command that would not see it."""
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"`stellwerk {command}` has options of its own: write {parameter.opts[0]} after"
                f" {command}, if it has that one (stellwerk {command} --help)"
            )


@app.command(
    "conformance", add_help_option=False, context_settings={"ignore_unknown_options": True}
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def conformance(words: tuple[str, ...]) -> None:
    """Check any server against the Open Inference Protocol."""
    from stellwerk.conformance.cli import app as conformance_app

    conformance_app(args=list(words), prog_name="stellwerk conformance")


for _command in (
    up,
    local,
    platform.status,
    platform.runtimes,
    predict.predict,
    models.app,
    buckets.app,
    access.token_app,
    access.keys_app,
    access.principals_app,
    audit.app,
):
    app.add_command(_command)


def main() -> None:
    """Runs the command. Exit code 0, 1 for an error told in one sentence, 2 for wrong usage."""
    app(prog_name="stellwerk")
