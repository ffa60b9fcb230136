"""The route table: derived from descriptors, most specific first, 405 apart from 404."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.routing import exposed_services, path_templates
from services.api_gateway.routing.routes import (
    AmbiguousRoutes,
    Route,
    RouteTable,
    is_public,
    routes_of,
)
from stellwerk.wire.errors import InvalidInput, MethodNotAllowed, RouteNotFound, ServiceError

ROUTES = routes_of(exposed_services.SERVED_BY)
TABLE = RouteTable(ROUTES)
SOME = ROUTES[0]


def route(method: str, text: str) -> Route:
    return Route(method, path_templates.parse(text), SOME.rpc, f"/{text}", "", "", SOME.rule)


def test_every_public_rpc_has_a_route_and_no_other() -> None:
    routed = {r.rpc_name for r in ROUTES}

    assert routed == set(exposed_services.public_methods())
    assert "/stellwerk.controlplane.v1.IdentityService/GetTrust" not in routed
    assert all(is_public(r.rpc) for r in ROUTES)


def test_additional_bindings_are_routes_too() -> None:
    match = TABLE.find("POST", b"/v1/buckets/b/models/m/aliases/prod:predict")

    assert match.route.rpc.name == "Predict"
    assert match.variables == {"name": "buckets/b/models/m/aliases/prod"}


@pytest.mark.parametrize(
    ("method", "path", "rpc"),
    [
        ("GET", b"/v1/buckets", "ListBuckets"),
        ("POST", b"/v1/buckets", "CreateBucket"),
        ("GET", b"/v1/buckets/b", "GetBucket"),
        ("HEAD", b"/v1/buckets/b", "GetBucket"),
        ("GET", b"/v1/buckets/b/models/m", "GetModel"),
        ("GET", b"/v1/buckets/b/models/m:resolve", "ResolveModelVersion"),
        ("POST", b"/v1/buckets/b/models/m:predict", "Predict"),
        ("GET", b"/v1/buckets/b/models/m:other", "GetModel"),
        ("GET", b"/v1/buckets/b/models/m%3Aresolve", "GetModel"),
        ("POST", b"/v1/buckets/b/models/m/uploads/u:finish", "UploadArtifact"),
        ("POST", b"/v1/tokens:issue", "IssueToken"),
        ("GET", b"/.well-known/jwks.json", "GetJwks"),
        ("GET", b"/v2", "ServerMetadata"),
        ("GET", b"/v2/", "ServerMetadata"),
        ("GET", b"/v2/models/team:predict", "ModelMetadata"),
        ("POST", b"/v2/models/team:iris/infer", "ModelInfer"),
        ("PUT", b"/v1/buckets/b/models/m/aliases/a", "SetAlias"),
    ],
)
def test_paths_find_their_rpc(method: str, path: bytes, rpc: str) -> None:
    assert TABLE.find(method, path).route.rpc.name == rpc


@pytest.mark.parametrize(
    "path",
    [b"", b"/", b"/v1", b"/v1/", b"//v1/buckets", b"/v1/buckets/", b"/v1//buckets",
     b"/v1/buckets//models", b"/v1/Buckets", b"/v1/%62uckets", b"/v1/buckets/b/models/m/nothing",
     b"/v1/*/b/c/d", b"/v1/tokens", b"/v1/buckets:", b"*"],
)  # fmt: skip
def test_other_paths_are_not_found(path: bytes) -> None:
    with pytest.raises(RouteNotFound):
        TABLE.find("GET", path)


def test_a_known_path_with_another_method_says_which_it_takes() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        TABLE.find("PATCH", b"/v1/buckets")
    assert caught.value.metadata["allow"] == "GET, HEAD, OPTIONS, POST"

    with pytest.raises(MethodNotAllowed) as caught:
        TABLE.find("GET", b"/v1/buckets/b/models/m:predict")
    assert caught.value.metadata["allow"] == "OPTIONS, POST"


def test_a_literal_goes_before_a_variable_and_a_variable_before_the_rest() -> None:
    routes = [route("GET", text) for text in ("/a/**", "/a/*", "/a/b", "/a/*/c", "/a/b/*", "/*/b")]
    for _ in range(5):
        random.shuffle(routes)
        table = RouteTable(routes)

        assert table.find("GET", b"/a/b").route.template.text == "/a/b"
        assert table.find("GET", b"/a/x").route.template.text == "/a/*"
        assert table.find("GET", b"/a/b/c").route.template.text == "/a/b/*"
        assert table.find("GET", b"/a/x/c").route.template.text == "/a/*/c"
        assert table.find("GET", b"/a/x/y").route.template.text == "/a/**"
        assert table.find("GET", b"/a").route.template.text == "/a/**"
        assert table.find("GET", b"/x/b").route.template.text == "/*/b"


def test_a_less_specific_route_is_taken_when_the_specific_one_lacks_the_method() -> None:
    table = RouteTable([route("POST", "/a/b"), route("GET", "/a/*")])

    assert table.find("GET", b"/a/b").route.template.text == "/a/*"


def test_two_routes_for_one_path_are_refused_at_start() -> None:
    with pytest.raises(AmbiguousRoutes):
        RouteTable([route("GET", "/a/{x}"), route("GET", "/a/{y}")])


@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from([b"/", b"v1", b"buckets", b"%", b":predict", b"*", b"models"])).map(
        b"".join
    )
)
def test_any_path_finds_a_route_or_a_typed_error(path: bytes) -> None:
    try:
        match = TABLE.find("GET", path)
    except (RouteNotFound, MethodNotAllowed, InvalidInput) as error:
        assert isinstance(error, ServiceError)
        return
    assert set(match.variables) == {variable.field for variable in match.route.template.variables}
