"""`stellwerk --show-completion SHELL` and `--install-completion SHELL`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

# Where each shell looks for the completions of one user, below the home folder.
_PLACES = {
    "bash": Path(".local/share/bash-completion/completions/stellwerk"),
    "zsh": Path(".zfunc/_stellwerk"),
    "fish": Path(".config/fish/completions/stellwerk.fish"),
}
_ZSH_ADVICE = "put this into ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit"


def completion_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds both options to the root command; each ends the command after its work."""
    shells = click.Choice(list(_PLACES))
    for name, callback, text in (
        ("--show-completion", _show, "Print the completion of a shell."),
        ("--install-completion", _install, "Install the completion for a shell."),
    ):
        command = click.option(
            name, type=shells, is_eager=True, expose_value=False, callback=callback, help=text
        )(command)
    return command


def _show(ctx: click.Context, param: click.Parameter, shell: str | None) -> None:
    if shell:
        click.echo(_script(ctx, shell))
        ctx.exit()


def _install(ctx: click.Context, param: click.Parameter, shell: str | None) -> None:
    if not shell:
        return
    path = Path.home() / _PLACES[shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_script(ctx, shell))
    click.echo(f"wrote {path}; open a new shell to use it")
    if shell == "zsh":
        click.echo(_ZSH_ADVICE)
    ctx.exit()


def _script(ctx: click.Context, shell: str) -> str:
    completion = get_completion_class(shell)
    assert completion is not None  # click knows the three shells of _PLACES
    return completion(ctx.command, {}, "stellwerk", "_STELLWERK_COMPLETE").source()
