"""What becomes of a stream: the requests that an application saw, the answers, and the end."""

from __future__ import annotations

from dataclasses import dataclass, field

# The ids that the gateway takes out of a head; an empty one is none.
IDS = (b"x-request-id", b"traceparent")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as an application saw it; `fields` are joined by name, `lines` are as sent."""

    method: str
    path: bytes
    query: bytes
    version: str
    fields: dict[bytes, bytes]
    body: bytes
    lines: tuple[tuple[bytes, bytes], ...] = ()
    # Why the application refused the head, "" if it did not.
    refused: str = ""

    def same(self, other: Seen) -> bool:
        """Returns whether both saw the same request."""
        return (self.method, self.path, self.query, self.fields, self.body) == (
            other.method,
            other.path,
            other.query,
            other.fields,
            other.body,
        )


@dataclass(slots=True)
class Outcome:
    """What became of a stream: requests, final statuses as written, and how it ended."""

    seen: list[Seen] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    closed: bool = False
    # Why the server's parser refused, as it says.
    reason: str = ""
    # Whether the last request was refused while its client waited for leave to send its body.
    waits: bool = False
    # What must not be: the server waits for something that never comes.
    hangs: str = ""


def joined(lines: tuple[tuple[bytes, bytes], ...]) -> dict[bytes, bytes]:
    """Returns the values by name; those of repeated fields are joined (RFC 9110, 5.2)."""
    fields: dict[bytes, bytes] = {}
    for name, value in lines:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return {name: value for name, value in fields.items() if value or name not in IDS}
