"""`stellwerk token …`, `stellwerk keys …`, `stellwerk principals …`"""

from __future__ import annotations

import sys
from typing import Any

import click

from stellwerk.client.cli.context import GlobalOptions, pass_options
from stellwerk.client.cli.output import when

principal_argument = click.argument("principal")
role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    help="A role, such as caller, or editor@team for one bucket; repeatable.",
)
purpose_option = click.option("--name", default="", help="What the key is for.")


@click.group("token", no_args_is_help=True)
def token_app() -> None:
    """Credentials of your own and of applications."""


@click.group("keys", no_args_is_help=True)
def keys_app() -> None:
    """API keys."""


@click.group("principals", no_args_is_help=True)
def principals_app() -> None:
    """People and applications."""


@token_app.command()
@pass_options
def whoami(options: GlobalOptions) -> None:
    """Show who the platform takes you for."""
    found = options.client.access.caller()
    facts = [
        ("principal", found.principal),
        ("roles", _roles(found)),
        ("until", when(found, "expire_time")),
    ]
    options.output.facts(found, facts)


@token_app.command()
@click.option(
    "--lifetime",
    type=click.IntRange(min=0),
    default=0,
    help="Seconds that the token is valid; 0 for the platform's default.",
)
@pass_options
def issue(options: GlobalOptions, lifetime: int) -> None:
    """Exchange the API key given as --token, or on standard input, for an access token."""
    api_key = options.token or sys.stdin.readline().strip()
    issued = options.client.access.issue_token(api_key, lifetime_seconds=lifetime)
    options.output.show(issued, lambda: options.output.line(issued.access_token))


@token_app.command("create")
@click.option(
    "--principal", required=True, help="The owner of the key; registered if not known yet."
)
@role_option
@purpose_option
@pass_options
def create_token(options: GlobalOptions, principal: str, roles: tuple[str, ...], name: str) -> None:
    """Register a principal if need be, and make an API key for it. The key is shown this once."""
    from stellwerk.client.errors import AlreadyExists

    try:
        options.client.access.create_principal(principal, list(roles))
    except AlreadyExists:
        if roles:
            options.client.access.update_principal(principal, roles=list(roles))
    _create_key(options, principal, name)


@keys_app.command("create")
@principal_argument
@purpose_option
@pass_options
def create_key(options: GlobalOptions, principal: str, name: str) -> None:
    """Make an API key. It is shown this once."""
    _create_key(options, principal, name)


def _create_key(options: GlobalOptions, principal: str, name: str) -> None:
    made = options.client.access.create_key(principal, display_name=name)
    options.output.note(f"{made.api_key.name}; keep the key now, it is not shown again:")
    options.output.show(made, lambda: options.output.line(made.secret))


@keys_app.command("list")
@principal_argument
@pass_options
def list_keys(options: GlobalOptions, principal: str) -> None:
    """List a principal's keys, newest first."""
    found = options.client.access.keys(principal)
    rows = [
        (
            key.name,
            key.display_name,
            when(key, "create_time"),
            when(key, "expire_time"),
            when(key, "revoke_time"),
        )
        for key in found
    ]
    columns = ("KEY", "FOR", "MADE", "LAPSES", "REVOKED")
    options.output.table(found, columns, rows, f"{principal} has no keys")


@keys_app.command()
@click.argument("key", metavar="principals/{principal}/keys/{key}")
@pass_options
def revoke(options: GlobalOptions, key: str) -> None:
    """Revoke a key and every token issued for it."""
    revoked = options.client.access.revoke_key(key)
    options.output.show(revoked, lambda: options.output.line(f"revoked {revoked.name}"))


@principals_app.command("list")
@pass_options
def list_principals(options: GlobalOptions) -> None:
    """List the principals."""
    found = options.client.access.principals()
    rows = [
        (
            principal.name,
            principal.display_name,
            _roles(principal),
            "disabled" if principal.disabled else "",
        )
        for principal in found
    ]
    options.output.table(found, ("PRINCIPAL", "NAME", "ROLES", ""), rows, "no principals")


@principals_app.command("create")
@principal_argument
@role_option
@click.option("--name", default="", help="The name that people know it by.")
@pass_options
def create_principal(
    options: GlobalOptions, principal: str, roles: tuple[str, ...], name: str
) -> None:
    """Register a person or an application, such as anna or billing-app."""
    made = options.client.access.create_principal(principal, list(roles), display_name=name)
    options.output.show(made, lambda: options.output.line(f"created {made.name}"))


@principals_app.command("update")
@principal_argument
@role_option
@click.option("--disable/--enable", "disabled", default=None, help="Close or open its access.")
@pass_options
def update_principal(
    options: GlobalOptions, principal: str, roles: tuple[str, ...], disabled: bool | None
) -> None:
    """Replace a principal's roles, or close and open its access."""
    changed = options.client.access.update_principal(
        principal, roles=list(roles) or None, disabled=disabled
    )
    options.output.show(
        changed, lambda: options.output.line(f"changed {changed.name}: {_roles(changed)}")
    )


@principals_app.command("drop")
@principal_argument
@pass_options
def drop_principal(options: GlobalOptions, principal: str) -> None:
    """Delete a principal with its keys."""
    options.client.access.drop_principal(principal)
    options.output.show({"deleted": principal}, lambda: options.output.line(f"deleted {principal}"))


def _roles(entry: Any) -> str:
    return " ".join(
        role.role if role.bucket == "*" else f"{role.role}@{role.bucket}" for role in entry.roles
    )
