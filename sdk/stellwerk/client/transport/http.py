"""REST, blocking, by urllib3. Several threads may use one transport."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import urllib3
from google.protobuf.message import Message
from urllib3 import exceptions as failures

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

# 256 KiB: a download is read in pieces of this size.
_PIECE_BYTES = 1 << 18


class HttpTransport:
    """Sends requests over REST with a pool of at most 64 connections."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._form = RestForm(endpoint)
        self._pool = _pool(endpoint)

    def call(self, request: Message, timeout: float) -> Message:
        """Sends a request; returns its RPC's response."""
        sent = self._form.call(request, timeout)
        return self._read(request, self._send(sent, timeout), sent)

    def upload(
        self, request: Message, pieces: Iterator[bytes], size: int, timeout: float
    ) -> Message:
        """Sends a request with `size` bytes in pieces as its body; returns its RPC's response."""
        sent = self._form.upload(request, size, timeout)
        return self._read(request, self._send(sent, timeout, body=pieces), sent)

    def download(self, request: Message, timeout: float) -> Iterator[bytes]:
        """Sends a request; yields the raw body of its response piece by piece."""
        sent = self._form.call(request, timeout)
        response = self._send(sent, timeout, preload_content=False)
        try:
            if response.status >= 300:
                raise self._refusal(request, response, sent)
            yield from response.stream(_PIECE_BYTES, decode_content=True)
        except failures.HTTPError as exc:
            raise self._failure(exc, sent, timeout) from exc
        finally:
            # A reader who stops early leaves the rest in the connection, which is therefore closed;
            # its place in the pool becomes free in any case.
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def _send(self, sent: RestCall, timeout: float, **options: Any) -> urllib3.BaseHTTPResponse:
        options.setdefault("body", sent.body)
        try:
            return self._pool.request(
                sent.method,
                sent.url,
                headers=sent.headers,
                timeout=urllib3.Timeout(total=timeout + GRACE_SECONDS),
                pool_timeout=timeout,
                retries=False,
                redirect=False,
                **options,
            )
        except failures.HTTPError as exc:
            raise self._failure(exc, sent, timeout) from exc

    def _read(
        self, request: Message, response: urllib3.BaseHTTPResponse, sent: RestCall
    ) -> Message:
        if response.status >= 300:
            raise self._refusal(request, response, sent)
        return read_response(request, response.data, sent.request_id)

    def _refusal(
        self, request: Message, response: urllib3.BaseHTTPResponse, sent: RestCall
    ) -> ServiceError:
        error = from_http(response.status, response.headers, response.data, self._form.address)
        error = refusal(error, request, self._endpoint)
        return identified(error, response.headers.get("x-request-id", sent.request_id))

    def _failure(self, exc: Exception, sent: RestCall, timeout: float) -> ServiceError:
        address = self._form.address
        cause = exc.original_error if isinstance(exc, failures.ProxyError) else exc
        match cause:
            case failures.NewConnectionError() | failures.ConnectTimeoutError():
                error: ServiceError = unreachable(address)
            case failures.TimeoutError() | failures.EmptyPoolError():
                error = late(address, timeout)
            case failures.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                error = untrusted(address)
            case failures.SSLError():
                error = unreachable(address)
            case failures.ProtocolError() if "BadStatusLine" in str(cause):
                error = no_http(address)
            case _:
                error = broken_off(address)
        return identified(error, sent.request_id)


def _pool(endpoint: Endpoint) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "num_pools": 1,
        "maxsize": MAX_CONNECTIONS,
        "block": True,
        "ssl_context": ssl.create_default_context(cafile=endpoint.ca),
    }
    proxy = _proxy(endpoint)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def _proxy(endpoint: Endpoint) -> str | None:
    """Returns the proxy that the environment names for the endpoint."""
    parts = urlsplit(endpoint.url)
    if endpoint.loopback or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
