"""All cases, in the order in which they are tried: those that change a server's state come last."""

from __future__ import annotations

from stellwerk.conformance.cases import binary_data, datatypes
from stellwerk.conformance.cases.case import Case
from stellwerk.conformance.cases.grpc import errors as grpc_errors
from stellwerk.conformance.cases.grpc import management as grpc_management
from stellwerk.conformance.cases.grpc import server as grpc_server
from stellwerk.conformance.cases.grpc import streaming as grpc_streaming
from stellwerk.conformance.cases.rest import compression as rest_compression
from stellwerk.conformance.cases.rest import errors as rest_errors
from stellwerk.conformance.cases.rest import generate as rest_generate
from stellwerk.conformance.cases.rest import infer as rest_infer
from stellwerk.conformance.cases.rest import limits as rest_limits
from stellwerk.conformance.cases.rest import management as rest_management
from stellwerk.conformance.cases.rest import parameters as rest_parameters
from stellwerk.conformance.cases.rest import server as rest_server


def all_cases() -> list[Case]:
    """Returns every case of the suite."""
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
