"""What a check says when a server behaves differently, and the comparisons that checks are made
of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from stellwerk.conformance.server.rest import Reply
    from stellwerk.conformance.server.rpc import Refusal

_SHOWN = 300


class Mismatch(Exception):
    """The server did something else."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected, self.got = expected, got


class NotApplicable(Exception):
    """The case cannot be tried on this server; the text says why."""


def shown(value: object) -> str:
    """The value in one line of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def that(holds: object, expected: str, got: object) -> None:
    """Raises Mismatch unless it holds."""
    if not holds:
        raise Mismatch(expected, shown(got))


def equal(got: Any, expected: Any, what: str) -> None:
    """Raises Mismatch unless both are equal and of one type; True is not 1."""
    that(got == expected and type(got) is type(expected), f"{what} {shown(expected)}", got)


def status(reply: Reply, *allowed: int) -> None:
    """The HTTP status is one of these."""
    that(reply.status in allowed, "status " + " or ".join(map(str, allowed)), reply.brief())


def json_object(reply: Reply) -> dict[str, Any]:
    """The reply's body, a JSON object."""
    body = reply.json()
    that(isinstance(body, dict), "a JSON object", reply.brief())
    found: dict[str, Any] = body
    return found


def failed(reply: Reply) -> None:
    """An error status, and {"error": text} in the body."""
    expected = 'an error status and {"error": text}'
    that(reply.status >= 400, expected, reply.brief())
    try:
        body = reply.json()
    except Mismatch:
        body = None
    that(
        isinstance(body, dict) and isinstance(body.get("error"), str) and body["error"],
        expected,
        reply.brief(),
    )


def client_error(reply: Reply) -> None:
    """The caller is told that the request was wrong. What the body of an error holds is for cases
    of its own.
    """
    that(400 <= reply.status < 500, "status 400, or another of 4xx", reply.brief())


def no_server_error(reply: Reply) -> None:
    """Whatever the server makes of the request, it is not the server's failure."""
    that(reply.status < 500, "an answer or a client error, not a server error", reply.brief())


def code(refusal: Refusal | None, *allowed: grpc.StatusCode) -> None:
    """The call failed with one of these codes."""
    expected = " or ".join(wanted.name for wanted in allowed)
    that(
        refusal is not None and refusal.code in allowed,
        expected,
        refusal.brief() if refusal else "OK",
    )
