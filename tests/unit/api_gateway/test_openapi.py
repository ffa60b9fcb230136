"""The OpenAPI document: valid by the official schema, complete, and made of the protos' own
words.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.api_gateway.openapi import builder, documents
from services.api_gateway.openapi.comments import comments
from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import RouteTable, routes_of

ROUTES = routes_of(exposed_services.SERVED_BY)
TABLE = RouteTable(ROUTES)
DOCUMENT = builder.document(ROUTES, "1.2.3")


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, verb, o) for path, item in DOCUMENT["paths"].items() for verb, o in item.items()]


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []  # type: ignore[arg-type]


def test_every_route_is_in_it_and_leads_to_its_rpc() -> None:
    documented = {(verb.upper(), path): o for path, verb, o in operations()}

    for route in ROUTES:
        path, names = builder.path_of(route)
        operation = documented[(route.method, path)]
        assert f"RPC: `{route.rpc_name}`" in operation["description"]
        assert [p["name"] for p in operation["parameters"] if p["in"] == "path"] == names
        real = re.sub(r"\{[^}]+\}", "x1", path).encode()
        assert TABLE.find(route.method, real).route is route
    extra = {path for _, path in documented} - {builder.path_of(route)[0] for route in ROUTES}
    assert {path.encode() for path in extra} == set(documents.documents_of(ROUTES))


def test_only_anonymous_routes_need_no_token() -> None:
    open_paths = {path for path, _, o in operations() if o.get("security") == []}

    assert open_paths == {
        "/v2/health/live", "/v2/health/ready", "/v1/tokens:issue", "/.well-known/jwks.json",
        "/", "/openapi.json", "/v1/openapi.json", "/docs",
    }  # fmt: skip
    assert DOCUMENT["security"] == [{"bearer": []}]


def test_operation_ids_are_unique() -> None:
    ids = [o["operationId"] for _, _, o in operations() if "operationId" in o]

    assert len(set(ids)) == len(ids) == len(ROUTES)


def test_comments_of_the_protos_are_its_descriptions() -> None:
    predict = DOCUMENT["paths"]["/v1/buckets/{bucket}/models/{model}:predict"]["post"]
    alias = DOCUMENT["components"]["schemas"]["stellwerk.repository.v1.Alias"]

    assert predict["summary"] == "Calls a method of a stored model and waits for the answer."
    assert "compare" not in alias["description"]
    assert alias["properties"]["etag"]["description"].startswith("Differs after each change.")
    assert alias["properties"]["version"] == {
        "type": ["string", "integer"], "format": "int64", "description": "The version it points to."
    }  # fmt: skip


def test_every_public_element_has_a_comment() -> None:
    known = comments()

    for service in exposed_services.SERVED_BY:
        assert service.full_name in known
        for method in service.methods:
            assert method.full_name in known
            for message in (method.input_type, method.output_type):
                assert message.full_name in known
                assert all(field.full_name in known for field in message.fields), message.full_name


@pytest.mark.parametrize(
    ("path", "verb", "names"),
    [
        ("/v1/buckets", "get", {"pageSize", "pageToken"}),
        ("/v1/principals/{principal}", "patch", {"updateMask"}),
        ("/v1/buckets/{bucket}/models/{model}:predict", "post", set()),
    ],
)
def test_query_parameters_are_the_fields_that_are_left(
    path: str, verb: str, names: set[str]
) -> None:
    parameters = DOCUMENT["paths"][path][verb]["parameters"]

    assert {p["name"] for p in parameters if p["in"] == "query"} == names


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = documents.PAGE.read_text()

    assert not re.search(r"(src|href)=|https?://|innerHTML|eval\(", text)


def test_predictions_may_be_bytes_both_ways_and_streams_are_events() -> None:
    infer = DOCUMENT["paths"]["/v2/models/{model_name}/infer"]["post"]
    stream = DOCUMENT["paths"]["/v2/models/{model_name}/generate_stream"]["post"]
    generate = DOCUMENT["paths"]["/v2/models/{model_name}/generate"]["post"]

    both = {"application/json", "application/octet-stream"}
    assert set(infer["requestBody"]["content"]) == set(infer["responses"]["200"]["content"]) == both
    assert "Inference-Header-Content-Length" in {
        parameter["name"] for parameter in infer["parameters"]
    }
    assert "Inference-Header-Content-Length" in infer["responses"]["200"]["headers"]
    assert set(generate["requestBody"]["content"]) == {"application/json"}
    assert set(stream["responses"]["200"]["content"]) == {"text/event-stream"}
