"""Finds the RPC that a request message belongs to, in the descriptors; nothing here knows any RPC
by name.

Every RPC has a request message of its own, so that path, response and REST routes follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from stellwerk.wire import permissions

_HTTP: Any = annotations_pb2.http
_VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Route:
    """One REST binding of an RPC."""

    http_method: str
    template: str
    body: str


@dataclass(frozen=True, slots=True)
class Rpc:
    """The facts that a client needs to call one RPC over any transport."""

    path: str
    request: type[Message]
    response: type[Message]
    routes: tuple[Route, ...]
    # The field of the response that is the whole body over REST; "" for the message itself.
    response_body: str
    # The RPC reads or computes and changes nothing, so that calling twice does no harm.
    repeatable: bool
    # The RPC asks its caller for no token.
    public: bool


def rpc_of(request: Message) -> Rpc:
    """Returns the RPC that takes this request message. Raises LookupError if there is none."""
    kind: Any = type(request)
    return _rpc_of(kind)


@cache
def _rpc_of(request: Any) -> Rpc:
    for service in request.DESCRIPTOR.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request.DESCRIPTOR:
                return _describe(method, request)
    raise LookupError(f"{request.DESCRIPTOR.full_name} is the request of no RPC in its file")


def _describe(method: MethodDescriptor, request: type[Message]) -> Rpc:
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[_HTTP]
    access = permissions.rule_of(method)
    return Rpc(
        path=access.method,
        request=request,
        response=message_factory.GetMessageClass(method.output_type),
        routes=tuple(
            _route(binding)
            for binding in (rule, *rule.additional_bindings)
            if binding.WhichOneof("pattern")
        ),
        response_body=rule.response_body,
        repeatable=not access.changes and not access.internal,
        public=access.permission == permissions.ANONYMOUS,
    )


def _route(rule: http_pb2.HttpRule) -> Route:
    pattern = rule.WhichOneof("pattern")
    if pattern in _VERBS:
        return Route(pattern.upper(), getattr(rule, pattern), rule.body)
    return Route(rule.custom.kind, rule.custom.path, rule.body)
