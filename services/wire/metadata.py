"""Names of the metadata keys that calls carry, on gRPC and AMQP alike."""

from __future__ import annotations

AUTHORIZATION = "authorization"
REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
PRINCIPAL = "x-principal"
# Passed on unchanged from hop to hop.
PROPAGATED = (REQUEST_ID, TRACEPARENT, TRACESTATE)
# Set on answers of predictions.
MODEL_VERSION = "x-model-version"
RUNTIME = "x-runtime"

MAX_REQUEST_ID_LENGTH = 128
