"""Names the proto services that the gateway exposes, and the platform's service behind each; no
other RPC can be reached through it.
"""

from __future__ import annotations

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from services.api_gateway.config import GatewaySettings
from services.api_gateway.routing.routes import is_public
from stellwerk.controlplane.v1 import (
    audit_service_pb2,
    controlplane_service_pb2,
    identity_service_pb2,
)
from stellwerk.gateway.v1 import gateway_service_pb2
from stellwerk.inference.v2 import grpc_service_pb2
from stellwerk.repository.v1 import repository_service_pb2
from stellwerk.router.v1 import router_service_pb2

GATEWAY = "gateway"
ROUTER = "router"
REPOSITORY = "repository"
CONTROLPLANE = "controlplane"


def _service(module: object, name: str) -> ServiceDescriptor:
    service: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]  # type: ignore[attr-defined]
    return service


INFERENCE_SERVICE = _service(grpc_service_pb2, "GRPCInferenceService")
GATEWAY_SERVICE = _service(gateway_service_pb2, "GatewayService")
# The platform's service that serves each proto service.
SERVED_BY: dict[ServiceDescriptor, str] = {
    GATEWAY_SERVICE: GATEWAY,
    INFERENCE_SERVICE: ROUTER,
    _service(router_service_pb2, "RouterService"): ROUTER,
    _service(repository_service_pb2, "RepositoryService"): REPOSITORY,
    _service(identity_service_pb2, "IdentityService"): CONTROLPLANE,
    _service(audit_service_pb2, "AuditService"): CONTROLPLANE,
    _service(controlplane_service_pb2, "ControlPlaneService"): CONTROLPLANE,
}
UPSTREAM_OF: dict[str, str] = {
    service.full_name: upstream for service, upstream in SERVED_BY.items()
}


def addresses(settings: GatewaySettings) -> dict[str, str]:
    """Returns the addresses of the platform's services, by the names above."""
    return {
        ROUTER: settings.router,
        REPOSITORY: settings.repository,
        CONTROLPLANE: settings.controlplane,
    }


def public_methods() -> dict[str, MethodDescriptor]:
    """Returns each RPC that may be called from outside, by full method
    ("/package.Service/Method").
    """
    return {
        f"/{service.full_name}/{method.name}": method
        for service in SERVED_BY
        for method in service.methods
        if is_public(method)
    }
