"""Connections between services: the options of every channel and server, and mutual TLS when it is
switched on.
"""

from __future__ import annotations

import grpc

from services.chassis.config import ServiceSettings

Options = list[tuple[str, int | str]]


def server_options(max_message_bytes: int) -> Options:
    """A silent peer is noticed within 15 s; peers may ping as often as our own channels do."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Between the two gRPC refuses at random; up to the first we get to say what is wrong with a
        # token.
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 24 * 1024),
        # Calls that were read and not begun yet. Beyond, gRPC cancels some; its own bound, a
        # thousand, is one burst.
        ("grpc.server.max_pending_requests", 16_384),
        ("grpc.server.max_pending_requests_hard_limit", 32_768),
        ("grpc.so_reuseport", 0),  # two processes on one port must fail, not share it
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.ping_timeout_ms", 5_000),
    ]


def channel_options(max_message_bytes: int) -> Options:
    """Keepalive on every channel, and reconnects that do not back off for minutes."""
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 0),  # retries are decided by callers who know what is idempotent
        ("grpc.use_local_subchannel_pool", 1),
    ]


def server_credentials(
    settings: ServiceSettings, *, ask_client: bool
) -> grpc.ServerCredentials | None:
    """TLS credentials, or None when TLS is not switched on.

    With `ask_client` peers must show a certificate of the same authority; the public door does not
    ask for one.
    """
    if settings.tls_key is None or settings.tls_certificate is None or settings.tls_ca is None:
        return None
    pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
    return grpc.ssl_server_credentials(
        [pair], settings.tls_ca.read_bytes(), require_client_auth=ask_client
    )


def open_channel(settings: ServiceSettings, address: str) -> grpc.aio.Channel:
    """A bare channel to a peer."""
    options = channel_options(settings.max_message_bytes)
    if settings.tls_key is None or settings.tls_certificate is None or settings.tls_ca is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        settings.tls_ca.read_bytes(),
        settings.tls_key.read_bytes(),
        settings.tls_certificate.read_bytes(),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)
