"""The names of the metadata that calls carry, on gRPC and AMQP alike."""

from __future__ import annotations

AUTHORIZATION = "authorization"
REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
PRINCIPAL = "x-principal"

MAX_REQUEST_ID_LENGTH = 128
