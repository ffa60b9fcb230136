"""The route table, derived from descriptors: every RPC with google.api.http, and no other, has
routes.

Which route takes a path never depends on the order of declaration: a literal segment goes before a
variable one, a variable one before "**", and a path that ends in a verb that some template asks for
belongs to such templates alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from services.api_gateway.routing import path_templates as templates
from services.api_gateway.routing.path_templates import ANY, REST, Template
from stellwerk.wire.errors import MethodNotAllowed, RouteNotFound
from stellwerk.wire.permissions import Rule, rule_of

# protoc's stubs and those of types-protobuf disagree about extensions.
_HTTP: Any = annotations_pb2.http
# Matches that are kept, and how long their paths may be.
_KEPT_MATCHES, _KEPT_PATH = 4096, 256
_VERBS = ("get", "put", "post", "delete", "patch")


class AmbiguousRoutes(Exception):
    """Two RPCs claim the same method and path. Found at start, never by a request."""


@dataclass(frozen=True, slots=True)
class Route:
    """One binding of an RPC to HTTP."""

    method: str
    template: Template
    rpc: MethodDescriptor
    rpc_name: str
    body: str
    response_body: str
    rule: Rule

    @property
    def service(self) -> str:
        """The full name of the proto service that serves it."""
        return str(self.rpc.containing_service.full_name)


@dataclass(frozen=True, slots=True)
class Match:
    """A route and what the path gives to its variables."""

    route: Route
    variables: Mapping[str, str]


@dataclass(slots=True)
class _Node:
    """A place in the tree of segments. Routes are kept by verb, then by HTTP method."""

    children: dict[str, _Node] = field(default_factory=dict)
    routes: dict[str, dict[str, Route]] = field(default_factory=dict)


def routes_of(services: Iterable[ServiceDescriptor]) -> list[Route]:
    """All routes of these services, in the order of declaration. Raises BadTemplate,
    UndeclaredRpc.
    """
    return [
        route for service in services for rpc in service.methods for route in _routes_of_rpc(rpc)
    ]


def is_public(rpc: MethodDescriptor) -> bool:
    """An RPC is public if and only if it carries google.api.http."""
    return bool(rpc.GetOptions().HasExtension(_HTTP))


def _routes_of_rpc(rpc: MethodDescriptor) -> list[Route]:
    if not is_public(rpc):
        return []
    first: http_pb2.HttpRule = rpc.GetOptions().Extensions[_HTTP]
    name = f"/{rpc.containing_service.full_name}/{rpc.name}"
    routes = []
    for rule in [first, *first.additional_bindings]:
        pattern = rule.WhichOneof("pattern")
        method = pattern.upper() if pattern in _VERBS else rule.custom.kind.upper()
        text = getattr(rule, pattern) if pattern in _VERBS else rule.custom.path
        template = templates.parse(text)
        routes.append(
            Route(method, template, rpc, name, rule.body, rule.response_body, rule_of(rpc))
        )
    return routes


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises AmbiguousRoutes."""
        self.routes = tuple(routes)
        self._root = _Node()
        self._found: dict[tuple[str, bytes], Match] = {}
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.template.segments:
            node = node.children.setdefault(segment, _Node())
        methods = node.routes.setdefault(route.template.verb, {})
        other = methods.setdefault(route.method, route)
        if other is not route:
            raise AmbiguousRoutes(
                f"{route.rpc_name} and {other.rpc_name} both claim {route.method}"
                f" {route.template.text}"
            )

    def find(self, method: str, raw_path: bytes) -> Match:
        """The match of a percent-encoded path without query. Raises RouteNotFound,
        MethodNotAllowed, InvalidInput.
        """
        known = self._found.get((method, raw_path))
        if known is not None:
            return known
        path, candidates = self._candidates(raw_path)
        allowed: list[str] = []
        for methods in candidates:
            route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if route is not None:
                return self._keep(method, raw_path, Match(route, route.template.capture(path)))
            allowed += methods
        if allowed:
            raise MethodNotAllowed(
                "this path does not take this method", allow=", ".join(_with_head(allowed))
            )
        raise RouteNotFound("there is nothing at this path; GET /openapi.json lists what there is")

    def _keep(self, method: str, raw_path: bytes, match: Match) -> Match:
        """Callers ask for the same few paths over and over; strangers' paths must not fill the
        memory.
        """
        if len(self._found) >= _KEPT_MATCHES:
            self._found.clear()
        if len(raw_path) <= _KEPT_PATH:
            self._found[(method, raw_path)] = match
        return match

    def allowed(self, raw_path: bytes) -> list[str]:
        """The methods that this path takes; empty if there is nothing."""
        _, candidates = self._candidates(raw_path)
        return _with_head([method for methods in candidates for method in methods])

    def _candidates(self, raw_path: bytes) -> tuple[list[bytes], list[dict[str, Route]]]:
        path = raw_path.removeprefix(b"/").split(b"/") if raw_path.startswith(b"/") else []
        last, colon, verb = path[-1].rpartition(b":") if path else (b"", b"", b"")
        if colon and last and (wanted := verb.decode("latin-1")):
            with_verb = [*path[:-1], last]
            found = [
                node.routes[wanted]
                for node in _walk(self._root, with_verb, 0)
                if wanted in node.routes
            ]
            if found:
                return with_verb, found
        return path, [node.routes[""] for node in _walk(self._root, path, 0) if "" in node.routes]


def _walk(node: _Node, path: list[bytes], at: int) -> Iterator[_Node]:
    """The nodes at which a path ends, most specific first."""
    if at == len(path):
        if path:
            yield node
    else:
        piece = path[at]
        # Segments of templates are plain ASCII words; what is not ASCII is no literal.
        literal = node.children.get(piece.decode("latin-1"))
        if literal is not None and piece not in (b"*", b"**"):
            yield from _walk(literal, path, at + 1)
        if piece and (variable := node.children.get(ANY)) is not None:
            yield from _walk(variable, path, at + 1)
    if path and all(path[at:]) and (rest := node.children.get(REST)) is not None:
        yield rest


def _with_head(methods: list[str]) -> list[str]:
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
