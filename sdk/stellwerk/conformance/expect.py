"""Comparisons that checks are made of; each raises Mismatch if the server behaves differently."""

from __future__ import annotations

from typing import Any, Protocol

import grpc

# Characters of a value that a report shows.
_SHOWN = 300


class Reply(Protocol):
    """An HTTP reply, as far as comparisons look at it."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    def json(self) -> Any:
        """Returns the parsed body. Raises Mismatch if it is no JSON."""
        ...

    def brief(self) -> str:
        """Returns the reply in one line."""
        ...


class Refusal(Protocol):
    """A failed gRPC call, as far as comparisons look at it."""

    @property
    def code(self) -> grpc.StatusCode:
        """The status code."""
        ...

    def brief(self) -> str:
        """Returns the failure in one line."""
        ...


class Mismatch(Exception):
    """The server behaved differently: `expected` and `got` are phrases for the report."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected = expected
        self.got = got


class NotApplicable(Exception):
    """The case cannot be tried on this server; the text says why."""


def shown(value: object) -> str:
    """Returns the value in one line of at most 300 characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def that(holds: object, expected: str, got: object) -> None:
    """Raises Mismatch if `holds` is false."""
    if not holds:
        raise Mismatch(expected, shown(got))


def equal(got: Any, expected: Any, what: str) -> None:
    """Raises Mismatch unless both are equal and of one type; True is not 1."""
    that(got == expected and type(got) is type(expected), f"{what} {shown(expected)}", got)


def status(reply: Reply, *allowed: int) -> None:
    """Raises Mismatch unless the HTTP status is one of these."""
    that(reply.status in allowed, "status " + " or ".join(map(str, allowed)), reply.brief())


def json_object(reply: Reply) -> dict[str, Any]:
    """Returns the reply's body. Raises Mismatch if it is no JSON object."""
    body = reply.json()
    that(isinstance(body, dict), "a JSON object", reply.brief())
    found: dict[str, Any] = body
    return found


def failed(reply: Reply) -> None:
    """Raises Mismatch unless the reply has an error status and {"error": text} in its body."""
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
    """Raises Mismatch unless the status says that the caller erred; the body is for other cases."""
    that(400 <= reply.status < 500, "status 400, or another of 4xx", reply.brief())


def no_server_error(reply: Reply) -> None:
    """Raises Mismatch if the status says that the server failed."""
    that(reply.status < 500, "an answer or a client error, not a server error", reply.brief())


def code(refusal: Refusal | None, *allowed: grpc.StatusCode) -> None:
    """Raises Mismatch unless the call failed with one of these codes."""
    expected = " or ".join(wanted.name for wanted in allowed)
    that(
        refusal is not None and refusal.code in allowed,
        expected,
        refusal.brief() if refusal else "OK",
    )
