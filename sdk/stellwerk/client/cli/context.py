"""The global options of the command, the client made from them, and the options that several
commands share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from stellwerk.client.cli.output import Output

if TYPE_CHECKING:
    from stellwerk.client import Client

# Two seconds for each call of a completion: a shell that waits longer looks hung.
_COMPLETION_SECONDS = 2.0


@dataclass
class GlobalOptions:
    """Holds the values of the global options."""

    url: str | None
    # The folder of a platform on this machine, in place of its address.
    data_dir: str | None
    # The token of the command line; the SDK itself looks into the environment.
    typed_token: str | None
    # The token of the command line or else of STELLWERK_TOKEN.
    token: str | None
    bucket: str
    as_json: bool
    timeout: float

    @cached_property
    def client(self) -> Client:
        """Returns the client of the platform that the options name; it connects when first used."""
        from stellwerk.client import connect

        return connect(
            self.url,
            self.typed_token,
            data_dir=self.data_dir,
            bucket=self.bucket,
            timeout=self.timeout,
        )

    @cached_property
    def output(self) -> Output:
        """Returns what the command prints with: tables, or JSON with `--json`."""
        return Output(self.as_json)


def platform_options(ctx: click.Context) -> tuple[str | None, str | None, str | None]:
    """Returns url, data directory and token of a root context: the token only if it is typed, and
    no url of the environment beside a data directory that is typed.
    """
    options: dict[str, Any] = ctx.params
    typed = {
        name
        for name in options
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    data_dir = options.get("data_dir")
    url = options.get("url") if data_dir is None or "url" in typed else None
    return url, data_dir, options.get("token") if "token" in typed else None


pass_options = click.make_pass_decorator(GlobalOptions)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of models that begin with `incomplete`, or none if the platform does not
    answer within two seconds a call.
    """
    root = ctx.find_root()
    try:
        from stellwerk.client import connect
        from stellwerk.client.naming import short_name

        url, data_dir, token = platform_options(root)
        bucket = root.params.get("bucket") or "default"
        with connect(
            url, token, data_dir=data_dir, bucket=bucket, timeout=_COMPLETION_SECONDS
        ) as client:
            found = [
                short_name(model.name).rpartition("/")[2] for model in client.models.list(limit=200)
            ]
    except Exception:  # a completion has no place to show an error
        return []
    return [name for name in found if name.startswith(incomplete)]


model_argument = click.argument("name", shell_complete=complete_model)
version_option = click.option(
    "--version", type=click.IntRange(min=1), help="The number of a version."
)
alias_option = click.option("--alias", help="An alias, such as production.")
