"""Derives the route table from descriptors: each RPC with google.api.http has routes, no other has.

The order of declaration never decides between routes. A literal segment goes before a variable
one, and that before "**". A path that ends in a verb of some template belongs to the templates with
that verb alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from services.api_gateway.routing import path_templates as templates
from services.api_gateway.routing.path_templates import ANY, REST, Template
from services.chassis.bounded_cache import BoundedCache
from stellwerk.wire.errors import MethodNotAllowed, RouteNotFound
from stellwerk.wire.permissions import Rule, rule_of

# Typed Any, because protoc's stubs and those of types-protobuf disagree about extensions.
_HTTP: Any = annotations_pb2.http
# Matches in the cache, and the bytes of a path from which it is not cached: some 3 MiB in all.
_MAX_CACHED = 4096
_MAX_CACHED_PATH = 256
_VERBS = ("get", "put", "post", "delete", "patch")


class AmbiguousRoutes(Exception):
    """Says that two RPCs claim one method and path. Raised at start, never by a request."""


# Compared by identity, so that a table keyed by routes costs no look at their fields.
@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One binding of an RPC to an HTTP method and path."""

    method: str
    template: Template
    rpc: MethodDescriptor
    rpc_name: str
    body: str
    response_body: str
    rule: Rule

    @property
    def service(self) -> str:
        """Returns the full name of the proto service that has the RPC."""
        return str(self.rpc.containing_service.full_name)


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and the values of its variables, by field path, in one request's path."""

    route: Route
    variables: Mapping[str, str]


@dataclass(slots=True)
class _Node:
    """A node in the tree of path segments; holds routes by verb, then by HTTP method."""

    children: dict[str, _Node] = field(default_factory=dict)
    routes: dict[str, dict[str, Route]] = field(default_factory=dict)


def routes_of(services: Iterable[ServiceDescriptor]) -> list[Route]:
    """Returns all routes of the services, in the order of declaration. Raises BadTemplate,
    UndeclaredRpc.
    """
    return [
        route for service in services for rpc in service.methods for route in _routes_of_rpc(rpc)
    ]


def is_public(rpc: MethodDescriptor) -> bool:
    """Returns whether the RPC carries google.api.http, which makes it public."""
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
    """Finds the route of a request by its method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises AmbiguousRoutes if two of the routes claim one method and path."""
        self.routes = tuple(routes)
        self._root = _Node()
        self._cached: BoundedCache[tuple[str, bytes], Match] = BoundedCache(_MAX_CACHED)
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
        """Returns the match of a percent-encoded path without query. Raises RouteNotFound,
        MethodNotAllowed, InvalidInput.
        """
        known = self._cached.get((method, raw_path))
        if known is not None:
            return known
        path, candidates = self._candidates(raw_path)
        allowed: list[str] = []
        for methods in candidates:
            route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if route is not None:
                return self._cache(method, raw_path, Match(route, route.template.capture(path)))
            allowed += methods
        if allowed:
            raise MethodNotAllowed(
                "this path does not take this method", allow=", ".join(_with_head(allowed))
            )
        raise RouteNotFound("there is nothing at this path; GET /openapi.json lists what there is")

    def _cache(self, method: str, raw_path: bytes, match: Match) -> Match:
        if len(raw_path) <= _MAX_CACHED_PATH:
            self._cached.keep((method, raw_path), match)
        return match

    def allowed(self, raw_path: bytes) -> list[str]:
        """Returns the methods that the path takes, an empty list if nothing is there."""
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
    """Yields the nodes at which the path ends, the most specific first."""
    if at == len(path):
        if path:
            yield node
    else:
        piece = path[at]
        # Literals are ASCII words; a segment of any other bytes matches none of them.
        literal = node.children.get(piece.decode("latin-1"))
        if literal is not None and piece not in (b"*", b"**"):
            yield from _walk(literal, path, at + 1)
        if piece and (variable := node.children.get(ANY)) is not None:
            yield from _walk(variable, path, at + 1)
    if path and all(path[at:]) and (rest := node.children.get(REST)) is not None:
        yield rest


def _with_head(methods: list[str]) -> list[str]:
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
