"""The REST transport, by httpx. Routes come from the descriptors; raw bodies are streamed in
constant memory.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
from google.protobuf.message import Message

from stellwerk.client.errors import Unavailable, from_http, late, unreachable
from stellwerk.client.transport.port import Target, user_agent
from stellwerk.client.transport.rest import from_http as read_answer
from stellwerk.client.transport.rest import to_http
from stellwerk.client.transport.rpc import rpc_of

# The platform is told the caller's deadline; waiting a little longer lets it say itself what was
# late.
GRACE_SECONDS = 0.5
# The largest number that a grpc-timeout value may hold.
MOST_MILLISECONDS = 99_999_999
# As many connections are kept as may be opened: opening one costs more than a prediction.
_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=64)


def _client_options(target: Target) -> dict[str, Any]:
    headers = {"user-agent": user_agent(), "accept": "application/json"}
    if target.token:
        headers["authorization"] = f"Bearer {target.token}"
    verify: ssl.SSLContext | bool = (
        ssl.create_default_context(cafile=str(target.ca)) if target.ca else True
    )
    return {
        "headers": headers,
        "verify": verify,
        "trust_env": not target.loopback,
        "limits": _LIMITS,
    }


def _request(address: str, request: Message, timeout: float) -> dict[str, Any]:
    http = to_http(request)
    headers = {"grpc-timeout": f"{min(max(int(timeout * 1000), 1), MOST_MILLISECONDS)}m"}
    if http.body is not None:
        headers["content-type"] = "application/json"
    return {
        "method": http.method,
        "url": address + http.target,
        "content": http.body,
        "headers": headers,
        "timeout": timeout + GRACE_SECONDS,
    }


def _for_upload(options: dict[str, Any], size: int) -> dict[str, Any]:
    options["headers"] |= {"content-type": "application/octet-stream", "content-length": str(size)}
    return options


@contextlib.contextmanager
def _failures(address: str, timeout: float) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as exc:
        raise unreachable(address) from exc
    except httpx.TimeoutException as exc:
        raise late(address, timeout) from exc
    except httpx.ConnectError as exc:
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            raise Unavailable(
                f"the certificate of {address} is not trusted; give its authority's certificate as"
                " `ca`",
                retry_after_ms=0,
                address=address,
            ) from exc
        raise unreachable(address) from exc
    except httpx.HTTPError as exc:
        raise Unavailable(
            f"the connection to {address} broke off before the answer came",
            retry_after_ms=0,
            address=address,
        ) from exc


def _answer(request: Message, response: httpx.Response, address: str) -> Message:
    if response.is_success:
        return read_answer(rpc_of(request), response.content)
    raise from_http(response.status_code, response.headers, response.content, address)


class HttpTransport:
    """Blocking REST."""

    def __init__(self, target: Target, adapter: httpx.BaseTransport | None = None) -> None:
        self._address = target.url.rstrip("/")
        self._request = partial(_request, self._address)
        self._client = httpx.Client(**_client_options(target), transport=adapter)

    def call(self, request: Message, timeout: float) -> Message:
        with _failures(self._address, timeout):
            response = self._client.request(**self._request(request, timeout))
        return _answer(request, response, self._address)

    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message:
        options = _for_upload(self._request(request, timeout), size) | {"content": pieces}
        with _failures(self._address, timeout):
            response = self._client.request(**options)
        return _answer(request, response, self._address)

    def download(self, request: Message, timeout: float) -> Iterator[bytes]:
        with (
            _failures(self._address, timeout),
            self._client.stream(**self._request(request, timeout)) as response,
        ):
            if not response.is_success:
                raise from_http(
                    response.status_code, response.headers, response.read(), self._address
                )
            yield from response.iter_bytes()

    def close(self) -> None:
        self._client.close()


class AsyncHttpTransport:
    """REST, awaited."""

    def __init__(self, target: Target, adapter: httpx.AsyncBaseTransport | None = None) -> None:
        self._address = target.url.rstrip("/")
        self._request = partial(_request, self._address)
        self._client = httpx.AsyncClient(**_client_options(target), transport=adapter)

    async def call(self, request: Message, timeout: float) -> Message:
        with _failures(self._address, timeout):
            response = await self._client.request(**self._request(request, timeout))
        return _answer(request, response, self._address)

    async def upload(
        self, request: Message, pieces: AsyncIterator[bytes], size: int, timeout: float
    ) -> Message:
        options = _for_upload(self._request(request, timeout), size) | {"content": pieces}
        with _failures(self._address, timeout):
            response = await self._client.request(**options)
        return _answer(request, response, self._address)

    async def download(self, request: Message, timeout: float) -> AsyncIterator[bytes]:
        with _failures(self._address, timeout):
            async with self._client.stream(**self._request(request, timeout)) as response:
                if not response.is_success:
                    raise from_http(
                        response.status_code,
                        response.headers,
                        await response.aread(),
                        self._address,
                    )
                async for piece in response.aiter_bytes():
                    yield piece

    async def close(self) -> None:
        await self._client.aclose()
