"""What the descriptors must say: an access rule and an effect on every RPC, HTTP on the public ones
and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from stellwerk.options.v1 import options_pb2
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, ROLES

_ACCESS: Any = options_pb2.access
_HTTP: Any = annotations_pb2.http
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
# Services that only the platform's own processes and its operators talk to, never through the
# gateway.
INTERNAL_SERVICES = ("stellwerk.runtime.v1.RuntimeService", "stellwerk.status.v1.StatusService")
HELD_BY_PEOPLE = frozenset(
    word for role in ROLES.values() if not role.service for word in role.permissions
)
HELD_BY_SERVICES = frozenset(
    word for role in ROLES.values() if role.service for word in role.permissions
)
# RFC 8615 fixes where the keys of an issuer are found.
PUBLIC_PATHS = re.compile(r"/(v1|v2|\.well-known)(/|$)")
VARIABLE = re.compile(r"\{([a-z_.]+)")


def _rpcs(
    descriptors: descriptor_pb2.FileDescriptorSet,
) -> Iterator[tuple[str, str, descriptor_pb2.MethodDescriptorProto]]:
    for file in descriptors.file:
        for service in file.service:
            for rpc in service.method:
                yield (
                    f"{file.package}.{service.name}.{rpc.name}",
                    f"{file.package}.{service.name}",
                    rpc,
                )


def access(descriptors: descriptor_pb2.FileDescriptorSet) -> list[str]:
    """RPCs without an access rule, without an effect, or with a permission that no role holds."""
    found = []
    for name, _, rpc in _rpcs(descriptors):
        rule = rpc.options.Extensions[_ACCESS]
        if not rule.permission:
            found.append(f"{name}: declares no access rule")
        elif rule.permission not in {ANONYMOUS, AUTHENTICATED} | HELD_BY_PEOPLE | HELD_BY_SERVICES:
            found.append(f'{name}: no role holds the permission "{rule.permission}"')
        if rule.effect == options_pb2.EFFECT_UNSPECIFIED:
            found.append(f"{name}: declares no effect")
    return found


def scopes(descriptors: descriptor_pb2.FileDescriptorSet) -> list[str]:
    """Access rules whose resource is no string field of the request."""
    messages = {
        f".{file.package}.{message.name}": message
        for file in descriptors.file
        for message in file.message_type
    }
    found = []
    for name, _, rpc in _rpcs(descriptors):
        path = rpc.options.Extensions[_ACCESS].resource
        if path and not _is_string(messages, rpc.input_type, path.split(".")):
            found.append(f"{name}: {rpc.input_type[1:]} has no string field {path}")
    return found


def _is_string(
    messages: dict[str, descriptor_pb2.DescriptorProto], message: str, path: list[str]
) -> bool:
    field = next((field for field in messages[message].field if field.name == path[0]), None)
    if field is None or field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED:
        return False
    if len(path) == 1:
        return field.type == STRING
    return field.type_name in messages and _is_string(messages, field.type_name, path[1:])


def public(descriptors: descriptor_pb2.FileDescriptorSet) -> list[str]:
    """RPCs that carry google.api.http though they are internal, or lack it though they are
    public.
    """
    found = []
    for name, service, rpc in _rpcs(descriptors):
        rule = rpc.options.Extensions[_ACCESS]
        internal = (
            rule.effect == options_pb2.EFFECT_INTERNAL
            or rule.permission in HELD_BY_SERVICES - HELD_BY_PEOPLE
            or service in INTERNAL_SERVICES
        )
        if internal and rpc.options.HasExtension(_HTTP):
            found.append(f"{name}: is internal and must not carry google.api.http")
        if not internal and not rpc.options.HasExtension(_HTTP):
            found.append(f"{name}: is public and carries no google.api.http")
    return found


def bindings(descriptors: descriptor_pb2.FileDescriptorSet) -> list[str]:
    """HTTP bindings that two RPCs claim, or that lie outside /v1 and /v2."""
    owners: dict[str, str] = {}
    found = []
    for name, _, rpc in _rpcs(descriptors):
        rule = rpc.options.Extensions[_HTTP]
        for binding in [rule, *rule.additional_bindings] if rpc.options.HasExtension(_HTTP) else []:
            verb = binding.WhichOneof("pattern")
            path = str(binding.custom.path if verb == "custom" else getattr(binding, verb))
            key = f"{verb} {VARIABLE.sub('{', path)}"
            if not PUBLIC_PATHS.match(path):
                found.append(f"{name}: {path} is neither under /v1 nor under /v2")
            if owners.setdefault(key, name) != name:
                found.append(f"{name}: {verb} {path} belongs to {owners[key]}")
    return found
