"""What every command has: the global options, a client made from them when first needed, and the
output.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stellwerk.client.cli.output import Output

if TYPE_CHECKING:
    from stellwerk.client.platform import Client

# Completing a word must not keep anyone waiting.
_COMPLETION_SECONDS = 2.0


@dataclass
class Globals:
    """The global options."""

    url: str | None
    token: str | None
    bucket: str
    as_json: bool
    timeout: float

    @classmethod
    def of(cls, ctx: Any) -> Globals:
        """Those of this invocation."""
        found = ctx.find_root().obj
        return found if isinstance(found, cls) else cls(None, None, "default", False, 30.0)

    @cached_property
    def client(self) -> Client:
        from stellwerk.client import connect

        return connect(self.url, self.token, bucket=self.bucket, timeout=self.timeout)

    @cached_property
    def output(self) -> Output:
        return Output(self.as_json)


def complete_model(ctx: Any, incomplete: str) -> list[str]:
    """Model names that begin like this, if a platform answers at once; nothing otherwise."""
    options = ctx.find_root().params
    try:
        from stellwerk.client import connect
        from stellwerk.client.naming import short_name

        bucket = options.get("bucket") or "default"
        with connect(
            options.get("url"), options.get("token"), bucket=bucket, timeout=_COMPLETION_SECONDS
        ) as client:
            found = [
                short_name(model.name).rpartition("/")[2] for model in client.models.list(limit=200)
            ]
    except Exception:  # a completion that fails shows nothing, whatever the reason
        return []
    return [name for name in found if name.startswith(incomplete)]
