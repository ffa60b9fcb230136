"""HTTP requests into messages and back, on the platform's own descriptors."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
from google.api import httpbody_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import RouteTable, routes_of
from services.api_gateway.transcoding import messages
from services.api_gateway.transcoding.parameters import query_pairs
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.wire.errors import InvalidInput

TABLE = RouteTable(routes_of(exposed_services.SERVED_BY))
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def read(method: str, url: str, body: bytes = b"", content_type: str = "") -> Any:
    path, _, query = url.partition("?")
    match = TABLE.find(method, path.encode())
    pairs = query_pairs(query.encode())
    return messages.request_message(match.route, match.variables, pairs, body, content_type)


def test_the_path_and_the_query_fill_the_message() -> None:
    message = read(
        "GET", "/v1/buckets/b/models?page_size=7&pageToken=t%2Bx&filter=format+%3D+%22onnx%22"
    )

    assert message == repository.ListModelsRequest(
        parent="buckets/b", page_size=7, page_token="t+x", filter='format = "onnx"'
    )


def test_the_whole_body_and_the_path() -> None:
    message = read(
        "POST",
        "/v1/buckets/b/models/m:predict",
        b'{"method":"score","instances":[[1,2.5],[null,"x"]]}',
    )

    assert message.name == "buckets/b/models/m"
    assert json_format.MessageToDict(message.instances) == [[1.0, 2.5], [None, "x"]]


def test_one_field_is_the_body() -> None:
    message = read("POST", "/v1/buckets/b/models/m/uploads", b'{"format":"skops","sizeBytes":"12"}')

    assert message == repository.CreateUploadRequest(
        parent="buckets/b/models/m",
        model_version=repository.ModelVersion(format="skops", size_bytes=12),
    )


def test_the_path_wins_over_the_body() -> None:
    message = read(
        "PUT",
        "/v1/buckets/b/models/m/aliases/prod",
        b'{"name":"buckets/x/models/y/aliases/z","version":"3"}',
    )

    assert message.alias == repository.Alias(name="buckets/b/models/m/aliases/prod", version=3)


def test_an_empty_body_is_an_empty_message() -> None:
    assert read("POST", "/v1/principals/p/keys/k:revoke") == identity.RevokeApiKeyRequest(
        name="principals/p/keys/k"
    )


def test_patch_fills_the_mask_from_the_body() -> None:
    roles = b'[{"role":"editor","bucket":"*"}]'
    body = b'{"name":"principals/p","displayName":"P","roles":' + roles + b',"etag":"7"}'

    message = read("PATCH", "/v1/principals/p", body)

    assert list(message.update_mask.paths) == ["display_name", "roles"]
    assert message.principal.etag == "7"
    assert message.principal.name == "principals/p"


def test_a_mask_in_the_query_is_taken_instead() -> None:
    message = read(
        "PATCH", "/v1/principals/p?updateMask=disabled,displayName", b'{"displayName":"P"}'
    )

    assert list(message.update_mask.paths) == ["disabled", "display_name"]


def test_a_raw_body_is_passed_on_with_its_type() -> None:
    url = "/v1/buckets/b/models/m/uploads/u:finish"
    message = read("POST", url, b"\x00\xff", "application/octet-stream")

    assert message.artifact == httpbody_pb2.HttpBody(
        content_type="application/octet-stream", data=b"\x00\xff"
    )
    assert messages.takes_raw_body(TABLE.find("POST", url.encode()).route)
    assert messages.gives_raw_body(
        TABLE.find("GET", b"/v1/buckets/b/models/m/versions/1:download").route
    )


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "/v1/buckets?nope=1", b""),
        ("GET", "/v1/buckets?page_size=1&page_size=2", b""),
        ("GET", "/v1/buckets?page_size=1&pageSize=1", b""),
        ("GET", "/v1/buckets?page_size=x", b""),
        ("GET", "/v1/buckets?page_size=%zz", b""),
        ("GET", "/v1/buckets?page_token=%ff", b""),
        ("GET", "/v1/buckets?page_size.x=1", b""),
        ("GET", "/v1/buckets?page_size[x]=1", b""),
        ("GET", "/v1/buckets?" + "&".join(["page_size=1"] * 300), b""),
        ("GET", "/v1/buckets", b"{}"),
        ("GET", "/v1/buckets/b?name=buckets/c", b""),
        ("POST", "/v1/buckets/b/models/m:predict?method=x", b"{}"),
        ("POST", "/v1/buckets?bucket.name=x", b"{}"),
        ("POST", "/v1/buckets", b"["),
        ("POST", "/v1/buckets", b"[]"),
        ("POST", "/v1/buckets", b'{"nam":"x"}'),
        ("PUT", "/v1/buckets/b/models/m/aliases/a?version=1", b"{}"),
    ],
)
def test_bad_requests_are_invalid_input(method: str, url: str, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(method, url, body)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        read("GET", "/v1/buckets?nope=1")
    assert caught.value.metadata["field"] == "nope"


class Fake:
    """A route over any message type, to reach what the platform's own routes have no use for
    yet.
    """

    def __init__(self, input_type: Any) -> None:
        self.rpc = self
        self.input_type = input_type
        self.body = ""
        self.method = "GET"


def fill(message_type: Any, query: str) -> Any:
    route: Any = Fake(message_type.DESCRIPTOR)
    return messages.request_message(route, {}, query_pairs(query.encode()), b"")


def test_nested_repeated_and_keyed_parameters() -> None:
    message = fill(
        repository.CreateUploadRequest,
        "model_version.requires.labels[zone]=west&modelVersion.requires.cpuCores=4&model_version.labels[a%5Bb%5D]=c%26",
    )
    assert message.model_version.requires.labels == {"zone": "west"}
    assert message.model_version.requires.cpu_cores == 4
    assert fill(router.PredictRequest, "output_names=a&outputNames=b").output_names == ["a", "b"]


def test_enums_times_bytes_and_booleans_in_the_query() -> None:
    record = fill(audit.AuditRecord, "kind=KIND_REFUSAL&time=2024-05-01T12:00:00Z&count=2")
    assert (record.kind, record.time.seconds, record.count) == (3, 1714564800, 2)
    assert fill(inference.InferParameter, "bool_param=true").bool_param
    for query in ("bool_param=1", "bool_param=true&string_param=x", "kind=5"):
        with pytest.raises(InvalidInput):
            fill(inference.InferParameter, query)


@pytest.mark.parametrize(
    "query", ["inputs.name=x", "requires=x", "instances=1", "inputs=1", "requires.labels=x"]
)
def test_messages_have_no_form_in_the_query(query: str) -> None:
    with pytest.raises(InvalidInput):
        fill(router.PredictRequest, query)


@given(parent=TEXT.filter(bool), size=st.integers(-(2**31), 2**31 - 1), token=TEXT)
def test_a_listing_survives_the_way_through_path_and_query(
    parent: str, size: int, token: str
) -> None:
    url = f"/v1/buckets/{quote(parent, safe='')}/models?" + urlencode(
        {"page_size": size, "page_token": token}
    )

    message = read("GET", url)

    assert message.page_size == size
    assert message.page_token == token
    assert message.parent.replace("%2F", "/") == f"buckets/{parent}".replace("%2F", "/")


def test_answers_print_zero_values_in_camel_case() -> None:
    route = TABLE.find("GET", b"/v1/buckets/b/models").route

    data = orjson.loads(
        messages.response_json(
            route, repository.ListModelsResponse(models=[repository.Model(name="m")])
        )
    )

    assert data["nextPageToken"] == ""
    assert data["models"][0]["latestVersion"] == "0"
    assert "createTime" not in data["models"][0]
