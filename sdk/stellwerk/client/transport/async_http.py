"""REST, awaited, by aiohttp: hundreds of calls at once do not slow its pool down (decision 25)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from google.protobuf.message import Message
from yarl import URL

from stellwerk.client.errors import ServiceError, from_http, identified, late, unreachable
from stellwerk.client.settings import Endpoint
from stellwerk.client.transport.port import refusal
from stellwerk.client.transport.rest import (
    GRACE_SECONDS,
    MAX_CONNECTIONS,
    RestCall,
    RestForm,
    broken_off,
    no_http,
    read_response,
    untrusted,
)


class AsyncHttpTransport:
    """Sends requests over REST with a pool of at most 64 connections.

    The connections belong to the event loop of the first call.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._form = RestForm(endpoint)
        self._opened: aiohttp.ClientSession | None = None

    async def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response."""
        sent = self._form.call(request, timeout)
        return await self._exchange(request, sent, sent.body, timeout)

    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        sent = self._form.upload(request, size, timeout)
        return await self._exchange(request, sent, pieces if size else None, timeout)

    async def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        sent = self._form.call(request, timeout)
        try:
            async with self._request(sent, sent.body, timeout) as response:
                if response.status >= 300:
                    raise self._refusal(request, response, await response.read(), sent)
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._failure(exc, sent, timeout) from exc

    async def close(self) -> None:
        """Closes the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _exchange(
        self, request: Message, sent: RestCall, body: Any, timeout: float
    ) -> Message:
        try:
            async with self._request(sent, body, timeout) as response:
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._failure(exc, sent, timeout) from exc
        if response.status >= 300:
            raise self._refusal(request, response, data, sent)
        return read_response(request, data, sent.request_id)

    def _request(self, sent: RestCall, body: Any, timeout: float) -> Any:
        if self._opened is None:
            self._opened = _session(self._endpoint)
        return self._opened.request(
            sent.method,
            URL(sent.url, encoded=True),
            data=body,
            headers=sent.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout + GRACE_SECONDS, sock_connect=timeout),
        )

    def _refusal(
        self, request: Message, response: aiohttp.ClientResponse, data: bytes, sent: RestCall
    ) -> ServiceError:
        error = from_http(response.status, response.headers, data, self._form.address)
        error = refusal(error, request, self._endpoint)
        return identified(error, response.headers.get("x-request-id", sent.request_id))

    def _failure(self, exc: Exception, sent: RestCall, timeout: float) -> ServiceError:
        address = self._form.address
        match exc:
            case aiohttp.ClientConnectorCertificateError():
                error: ServiceError = untrusted(address)
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                error = unreachable(address)
            case aiohttp.ClientResponseError() if "Bad status line" in exc.message:
                error = no_http(address)
            case TimeoutError():
                error = late(address, timeout)
            case _:
                error = broken_off(address)
        return identified(error, sent.request_id)


def _session(endpoint: Endpoint) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=endpoint.ca) if endpoint.secure else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=not endpoint.loopback,
    )
