"""As little HTTP/1.1 as it takes to repeat one POST over many connections: a load generator shares
the cores.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class BadResponse(Exception):
    """What came is not a response that this client understands, or the connection broke."""


def request_bytes(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, int, bytes]:
    """Host, port, and the whole request as it goes over the wire."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return parts.hostname, parts.port, "\r\n".join(lines).encode() + _END + body


def parse(data: bytes) -> tuple[int, bytes] | None:
    """Status and body; None while more is to come. Raises BadResponse for one without a length."""
    end = data.find(_END)
    if end < 0:
        return None
    length = _LENGTH.search(data, 0, end)
    if length is None or not data.startswith(b"HTTP/1.1 "):
        raise BadResponse(data[:200].decode(errors="replace"))
    body = data[end + len(_END) :]
    return (int(data[9:12]), body) if len(body) >= int(length[1]) else None


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            found = parse(self._buffer)
        except BadResponse as problem:
            self._fail(problem)
            return
        if found is not None and self._answer is not None:
            self._buffer = b""
            if not self._answer.done():
                self._answer.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(BadResponse("the connection was closed"))

    @property
    def open(self) -> bool:
        """Whether it can take another request."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises BadResponse."""
        if self._transport is None:
            raise BadResponse("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """Closes it at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, problem: BadResponse) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(problem)


class Pool:
    """Connections to one server; as many as there are requests at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[Connection] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body over a connection of its own; cancelled, that connection is closed.
        Raises BadResponse.
        """
        connection = await self._connection()
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.abort()
            raise
        self._idle.append(connection)
        return answer

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        try:
            _, made = await asyncio.get_running_loop().create_connection(
                Connection, self._host, self._port
            )
        except OSError as problem:
            raise BadResponse(str(problem)) from None
        return made

    def close(self) -> None:
        """Closes what is idle."""
        for connection in self._idle:
            connection.abort()
