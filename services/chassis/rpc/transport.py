"""Options of every gRPC channel and server, and mutual TLS between services if it is on."""

from __future__ import annotations

import grpc

from services.chassis.config import ServiceSettings

Options = list[tuple[str, int | str]]


def server_options(max_message_bytes: int) -> Options:
    """Returns the options of a server.

    It notices a silent peer within 15 s, and lets peers ping as often as `channel_options` do.
    """
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Bytes. Between the two sizes gRPC refuses calls at random; up to the first the guard can
        # say that a token is too long.
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 24 * 1024),
        # Calls that were read and have not begun. Beyond them gRPC cancels some; its default of
        # 1,000 is a single burst of callers.
        ("grpc.server.max_pending_requests", 16_384),
        ("grpc.server.max_pending_requests_hard_limit", 32_768),
        # A second process on one port fails, instead of sharing the port.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.ping_timeout_ms", 5_000),
    ]


def channel_options(max_message_bytes: int) -> Options:
    """Returns the options of a channel: it notices a silent peer within 15 s, and tries to
    reconnect at least once a second.
    """
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
        # Only callers know which of their calls are safe to repeat.
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]


def server_credentials(
    settings: ServiceSettings, *, ask_client: bool
) -> grpc.ServerCredentials | None:
    """Returns TLS credentials, None if TLS is off.

    With `ask_client` peers must show a certificate of the same authority; a public server asks for
    none.
    """
    if settings.tls_key is None or settings.tls_certificate is None or settings.tls_ca is None:
        return None
    pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
    return grpc.ssl_server_credentials(
        [pair], settings.tls_ca.read_bytes(), require_client_auth=ask_client
    )


def open_channel(settings: ServiceSettings, address: str) -> grpc.aio.Channel:
    """Opens a bare channel to a peer, with mutual TLS if it is on."""
    options = channel_options(settings.max_message_bytes)
    if settings.tls_key is None or settings.tls_certificate is None or settings.tls_ca is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        settings.tls_ca.read_bytes(),
        settings.tls_key.read_bytes(),
        settings.tls_certificate.read_bytes(),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)
