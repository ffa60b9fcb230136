"""`python -m services.local`: the same commands without the client's."""

from __future__ import annotations

from services.local.cli import app

app(prog_name="stellwerk local")
