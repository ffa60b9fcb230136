"""The access rules of all RPCs, read from the descriptors, and the permissions of all roles.

A service with an RPC without a rule does not start. "anonymous" and "authenticated" are the two
rules that ask for no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from stellwerk.options.v1 import options_pb2
from stellwerk.wire import names
from stellwerk.wire.errors import NotPermitted

ANONYMOUS = "anonymous"
AUTHENTICATED = "authenticated"
# protoc's stubs and those of types-protobuf disagree about extensions.
_ACCESS: Any = options_pb2.access
ALL_BUCKETS = "*"
INFERENCE_SERVICE = "inference.GRPCInferenceService"

# Methods of gRPC's own libraries in every server; their descriptors carry no access option.
LIBRARY_RULES: dict[str, str] = {
    "/grpc.health.v1.Health/Check": ANONYMOUS,
    "/grpc.health.v1.Health/List": ANONYMOUS,
    "/grpc.health.v1.Health/Watch": ANONYMOUS,
}


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of permissions. Service roles are the platform's own and cannot be granted."""

    name: str
    description: str
    permissions: frozenset[str]
    service: bool = False


def _role(name: str, description: str, permissions: str, service: bool = False) -> Role:
    return Role(name, description, frozenset(permissions.split()), service)


_VIEWER = "buckets.read models.read runtimes.read status.read"
_EDITOR = _VIEWER + " models.write infer"
_OPERATOR = _EDITOR + " buckets.write audit.read access.read inference.settings"
ROLES: dict[str, Role] = {
    role.name: role
    for role in [
        _role("viewer", "sees models, runtimes and status", _VIEWER),
        _role("caller", "an application: predicts, sees models", "infer models.read"),
        _role("editor", "a data scientist: stores models and predicts", _EDITOR),
        _role(
            "publisher",
            "an editor who may also store formats that run code",
            _EDITOR + " models.write_unsafe",
        ),
        _role("operator", "runs the platform: buckets, audit, who has access", _OPERATOR),
        _role(
            "admin",
            "may do everything people may do",
            _OPERATOR + " access.write models.write_unsafe",
        ),
        _role(
            "service.api_gateway",
            "the gateway itself",
            "status.read audit.write broker.exchange calls.forward",
            True,
        ),
        _role(
            "service.router",
            "the router itself",
            "buckets.read models.read status.read audit.write broker.exchange",
            True,
        ),
        _role(
            "service.runtime",
            "a runtime itself",
            "models.read runtimes.attach status.read audit.write broker.exchange",
            True,
        ),
        _role(
            "service.repository",
            "the repository itself",
            "status.read audit.write broker.exchange",
            True,
        ),
        _role(
            "service.controlplane",
            "the control plane itself",
            "status.read runtimes.read audit.write broker.exchange",
            True,
        ),
    ]
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on one bucket, or on all buckets and the platform itself ("*")."""

    role: str
    bucket: str = ALL_BUCKETS


def permits(grants: Iterable[Grant], permission: str, bucket: str) -> bool:
    """Returns whether the grants give the permission on the bucket, platform-wide for ""."""
    for grant in grants:
        role = ROLES.get(grant.role)
        in_scope = grant.bucket == ALL_BUCKETS or (bool(bucket) and grant.bucket == bucket)
        if role and permission in role.permissions and in_scope:
            return True
    return False


def authorise(grants: Iterable[Grant], permission: str, bucket: str) -> None:
    """Raises NotPermitted unless the grants give the permission on the bucket.

    Bucket "" asks for the permission on the whole platform.
    """
    if permits(grants, permission, bucket):
        return
    where = f" on buckets/{bucket}" if bucket else ""
    raise NotPermitted(
        f"this needs the permission {permission}{where}; ask an administrator for a role that has"
        " it",
        permission=permission,
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """The access rule of one RPC."""

    method: str
    permission: str
    resource: str
    changes: bool
    internal: bool
    streaming: bool = False

    def resource_of(self, request: Message | None) -> str:
        """Returns the name of the resource that the request is about, "" if it names none."""
        value: object = request
        for part in self.resource.split(".") if self.resource else []:
            value = getattr(value, part, "")
        if not self.resource or not isinstance(value, str):
            return ""
        if self.method.startswith(f"/{INFERENCE_SERVICE}/"):
            bucket, colon, model = value.rpartition(":")
            return f"buckets/{bucket if colon else names.DEFAULT_BUCKET}/models/{model}"
        return value


class UndeclaredRpc(Exception):
    """An RPC carries no access rule."""


def rule_of(method: MethodDescriptor) -> Rule:
    """Returns the rule in the method's options. Raises UndeclaredRpc if there is none."""
    full = f"/{method.containing_service.full_name}/{method.name}"
    options = method.GetOptions()
    if not options.HasExtension(_ACCESS):
        raise UndeclaredRpc(f"{full} carries no (stellwerk.options.v1.access) option")
    access: options_pb2.Access = options.Extensions[_ACCESS]
    if not access.permission or access.effect == options_pb2.EFFECT_UNSPECIFIED:
        raise UndeclaredRpc(f"{full} declares no permission or no effect")
    changes = access.effect == options_pb2.EFFECT_CHANGE
    if changes and method.server_streaming:
        raise UndeclaredRpc(
            f"{full} is a change that answers with a stream; its outcome could not be audited"
        )
    return Rule(
        method=full,
        permission=access.permission,
        resource=access.resource,
        changes=changes,
        internal=access.effect == options_pb2.EFFECT_INTERNAL,
        streaming=method.client_streaming or method.server_streaming,
    )


def rules_of(services: Iterable[ServiceDescriptor]) -> Mapping[str, Rule]:
    """Returns the rules of these services and of gRPC's own libraries, by full method."""
    rules = {
        method: Rule(method, permission, "", False, False)
        for method, permission in LIBRARY_RULES.items()
    }
    for service in services:
        for method in service.methods:
            rule = rule_of(method)
            rules[rule.method] = rule
    return rules
