"""All cases, in the order in which they are tried: what changes a server's state comes last."""

from __future__ import annotations

from stellwerk.conformance.case import Case
from stellwerk.conformance.cases import (
    binary_data,
    datatypes,
    grpc_errors,
    grpc_management,
    grpc_server,
    grpc_streaming,
    rest_compression,
    rest_errors,
    rest_generate,
    rest_infer,
    rest_limits,
    rest_management,
    rest_parameters,
    rest_server,
)


def all_cases() -> list[Case]:
    """Every case of the suite."""
    parts = (
        rest_server.CASES,
        rest_infer.CASES,
        rest_server.HEALTH,
        grpc_server.CASES,
        rest_errors.CASES,
        grpc_errors.CASES,
        rest_limits.CASES,
        grpc_errors.LIMITS,
        rest_compression.CASES,
        binary_data.CASES,
        rest_parameters.CASES,
        rest_parameters.CLASSES,
        grpc_errors.PARAMETERS,
        grpc_streaming.CASES,
        rest_generate.CASES,
        rest_management.STATISTICS,
        grpc_management.STATISTICS,
        rest_management.CONFIGURATION,
        grpc_management.CONFIGURATION,
        rest_management.SHARED,
        grpc_management.SHARED,
        rest_management.REPOSITORY,
        grpc_management.REPOSITORY,
    )
    return [*datatypes.all_cases(), *(case for part in parts for case in part.all)]


__all__ = ["all_cases"]
