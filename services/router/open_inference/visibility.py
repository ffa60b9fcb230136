"""Which models the caller may see, for the RPCs that are about many models and so declare no
resource.
"""

from __future__ import annotations

from services.chassis import context
from stellwerk.wire.errors import NotPermitted
from stellwerk.wire.permissions import permits

_PERMISSION = "models.read"


def sees(bucket: str) -> bool:
    """Whether the caller may see the bucket's models."""
    return permits(context.caller().grants, _PERMISSION, bucket)


def require(bucket: str) -> None:
    """Raises NotPermitted unless the caller may see the bucket's models."""
    if not sees(bucket):
        raise NotPermitted(
            f"this needs the permission {_PERMISSION} on buckets/{bucket}; ask an administrator for"
            " a role that has it",
            permission=_PERMISSION,
        )
