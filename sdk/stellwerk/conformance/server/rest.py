"""Plain HTTP to the server under test: sends any bytes, and repairs nothing in replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import urllib3
from urllib3 import exceptions as failures

from stellwerk.conformance.expect import Mismatch, shown

# A tuple is sent in chunks.
Body = bytes | tuple[bytes, ...] | Mapping[str, Any] | list[Any] | None
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply. Header names are lower-case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the parsed body; NaN and Infinity are allowed. Raises Mismatch if it is
        no JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Mismatch("a JSON body", self.brief()) from None

    def brief(self) -> str:
        """Returns the status and the beginning of the body."""
        text = self.body[:400].decode("utf-8", "replace")
        kind = self.headers.get("content-type", "no content type")
        return shown(
            f"{self.status} {kind}: {text}" if self.body else f"{self.status} with an empty body"
        )


class Rest:
    """A connection pool to one server."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._headers = {"accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        # A server under test is asked directly: no proxy of the environment, no repetition, no
        # redirect.
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Sends a GET request; otherwise like `send`."""
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: Body = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Sends a POST request; otherwise like `send`."""
        return self.send("POST", path, body, headers)

    def send(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Sends one request and returns the reply; mappings and lists go as JSON. Raises Mismatch
        if no HTTP reply comes.
        """
        given = dict(headers or {})
        if isinstance(body, Mapping | list):
            body, given = json.dumps(body).encode(), {**JSON, **given}
        try:
            try:
                answer = self._request(method, path, body, given)
            except failures.ProtocolError:
                # Once more: a server may close a connection that is kept open at any moment (RFC
                # 9112, 9.3.1).
                answer = self._request(method, path, body, given)
        except failures.HTTPError as exc:
            raise Mismatch("an HTTP answer", f"{type(exc).__name__}: {exc}") from exc
        names = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, names, answer.data)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | tuple[bytes, ...] | None,
        headers: dict[str, str],
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.request(
            method,
            self.url + path,
            # A body without a length is sent in chunks.
            body=iter(body) if isinstance(body, tuple) else body,
            headers={**self._headers, **{name.lower(): value for name, value in headers.items()}},
            redirect=False,
        )

    def reachable(self) -> str:
        """Returns the reason why the server cannot be reached, "" if it answers."""
        try:
            self._request("GET", "/v2/health/live", None, {})
        except failures.HTTPError as exc:
            return str(exc) or type(exc).__name__
        return ""

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()


def model_path(model: str, rest: str = "", version: str = "") -> str:
    """Returns /v2/models/MODEL[/versions/VERSION][/REST]."""
    path = f"/v2/models/{quote(model, safe='')}"
    if version:
        path += f"/versions/{quote(version, safe='')}"
    return f"{path}/{rest}" if rest else path
