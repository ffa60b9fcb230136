"""`stellwerk token …`, `stellwerk keys …`, `stellwerk principals …`"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stellwerk.client.cli.context import Globals
from stellwerk.client.cli.output import when

token_app = typer.Typer(no_args_is_help=True, help="Credentials of your own and of applications.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys.")
principals_app = typer.Typer(no_args_is_help=True, help="People and applications.")

PrincipalName = Annotated[str, typer.Argument(help="The principal, such as anna or billing-app.")]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="A role, such as caller, or editor@team for one bucket; repeatable."
    ),
]


def _roles(entry: Any) -> str:
    return " ".join(
        role.role if role.bucket == "*" else f"{role.role}@{role.bucket}" for role in entry.roles
    )


@token_app.command()
def whoami(ctx: typer.Context) -> None:
    """Show who the platform takes you for."""
    options = Globals.of(ctx)
    found = options.client.access.caller()
    facts = [
        ("principal", found.principal),
        ("roles", _roles(found)),
        ("until", when(found, "expire_time")),
    ]
    options.output.facts(found, facts)


@token_app.command()
def issue(
    ctx: typer.Context,
    lifetime: Annotated[
        int, typer.Option(min=0, help="Seconds the token shall live; 0 for the default.")
    ] = 0,
) -> None:
    """Exchange the API key given as --token, or on standard input, for an access token."""
    options = Globals.of(ctx)
    api_key = options.token or sys.stdin.readline().strip()
    issued = options.client.access.issue_token(api_key, lifetime_seconds=lifetime)
    options.output.show(issued, lambda: options.output.line(issued.access_token))


@token_app.command("create")
def create_token(
    ctx: typer.Context,
    principal: Annotated[str, typer.Option(help="Whose it is; registered if not known yet.")],
    role: Roles = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Register a principal if need be, and make an API key for it. The key is shown this once."""
    from stellwerk.client.errors import AlreadyExists

    options = Globals.of(ctx)
    try:
        options.client.access.create_principal(principal, role or [])
    except AlreadyExists:
        if role:
            options.client.access.update_principal(principal, roles=role)
    _create_key(options, principal, name)


@keys_app.command("create")
def create_key(
    ctx: typer.Context,
    principal: PrincipalName,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Make an API key. It is shown this once."""
    _create_key(Globals.of(ctx), principal, name)


def _create_key(options: Globals, principal: str, name: str) -> None:
    made = options.client.access.create_key(principal, display_name=name)
    options.output.note(f"{made.api_key.name}; keep the key now, it is not shown again:")
    options.output.show(made, lambda: options.output.line(made.secret))


@keys_app.command("list")
def list_keys(ctx: typer.Context, principal: PrincipalName) -> None:
    """List a principal's keys, newest first."""
    options = Globals.of(ctx)
    found = options.client.access.keys(principal)
    rows = [
        (
            k.name,
            k.display_name,
            when(k, "create_time"),
            when(k, "expire_time"),
            when(k, "revoke_time"),
        )
        for k in found
    ]
    options.output.table(
        found, ("KEY", "FOR", "MADE", "LAPSES", "REVOKED"), rows, f"{principal} has no keys"
    )


@keys_app.command()
def revoke(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="principals/{principal}/keys/{key}")],
) -> None:
    """Revoke a key and every token issued for it."""
    options = Globals.of(ctx)
    revoked = options.client.access.revoke_key(key)
    options.output.show(revoked, lambda: options.output.line(f"revoked {revoked.name}"))


@principals_app.command("list")
def list_principals(ctx: typer.Context) -> None:
    """List the principals."""
    options = Globals.of(ctx)
    found = options.client.access.principals()
    rows = [(p.name, p.display_name, _roles(p), "disabled" if p.disabled else "") for p in found]
    options.output.table(found, ("PRINCIPAL", "NAME", "ROLES", ""), rows, "no principals")


@principals_app.command("create")
def create_principal(
    ctx: typer.Context,
    principal: PrincipalName,
    role: Roles = None,
    name: Annotated[str, typer.Option(help="How people call it.")] = "",
) -> None:
    """Register a person or an application."""
    options = Globals.of(ctx)
    made = options.client.access.create_principal(principal, role or [], display_name=name)
    options.output.show(made, lambda: options.output.line(f"created {made.name}"))


@principals_app.command("update")
def update_principal(
    ctx: typer.Context,
    principal: PrincipalName,
    role: Roles = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Close or open its access.")
    ] = None,
) -> None:
    """Replace a principal's roles, or close and open its access."""
    options = Globals.of(ctx)
    changed = options.client.access.update_principal(principal, roles=role, disabled=disabled)
    options.output.show(
        changed, lambda: options.output.line(f"changed {changed.name}: {_roles(changed)}")
    )


@principals_app.command("drop")
def drop_principal(ctx: typer.Context, principal: PrincipalName) -> None:
    """Delete a principal with its keys."""
    options = Globals.of(ctx)
    options.client.access.drop_principal(principal)
    options.output.show({"deleted": principal}, lambda: options.output.line(f"deleted {principal}"))
