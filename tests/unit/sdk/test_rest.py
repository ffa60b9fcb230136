"""Client-side transcoding against the rules of google.api.http, for each public RPC and for the
special cases.
"""

from __future__ import annotations

import orjson
import pytest
from google.api import httpbody_pb2
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass

from stellwerk.client.errors import Internal, InvalidInput
from stellwerk.client.transport.rest import HttpCall, read_response, to_http
from stellwerk.client.transport.rpc import rpc_of
from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import fleet_service_pb2 as fleet
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1.tensor_pb2 import Tensor
from tests.unit.sdk.fake_platform import SERVICES, request_of

MODEL = "buckets/default/models/iris"
CASES = [
    (repository.GetModelRequest(name=MODEL), HttpCall("GET", f"/v1/{MODEL}", None)),
    (repository.ListBucketsRequest(), HttpCall("GET", "/v1/buckets", None)),
    (
        repository.ListModelsRequest(parent="buckets/default", page_size=5, filter='name = "a b*"'),
        HttpCall("GET", "/v1/buckets/default/models?pageSize=5&filter=name+%3D+%22a+b%2A%22", None),
    ),
    (
        repository.ResolveModelVersionRequest(name=MODEL),
        HttpCall("GET", f"/v1/{MODEL}:resolve", None),
    ),
    (
        repository.ResolveModelVersionRequest(name=f"{MODEL}/aliases/production"),
        HttpCall("GET", f"/v1/{MODEL}/aliases/production:resolve", None),
    ),
    (
        repository.SetAliasRequest(
            alias=repository.Alias(name=f"{MODEL}/aliases/a", version=3, etag="e")
        ),
        HttpCall("PUT", f"/v1/{MODEL}/aliases/a", b'{"version":"3","etag":"e"}'),
    ),
    (
        repository.DeleteAliasRequest(name=f"{MODEL}/aliases/a", etag="x/y"),
        HttpCall("DELETE", f"/v1/{MODEL}/aliases/a?etag=x%2Fy", None),
    ),
    (
        repository.UploadArtifactRequest(
            name=f"{MODEL}/uploads/u1", artifact=httpbody_pb2.HttpBody(data=b"x")
        ),
        HttpCall("POST", f"/v1/{MODEL}/uploads/u1:finish", None),
    ),
    (
        router.PredictRequest(
            name=f"{MODEL}/versions/2", inputs=[Tensor(name="X", shape=[1], data=b"\xff")]
        ),
        HttpCall(
            "POST",
            f"/v1/{MODEL}/versions/2:predict",
            b'{"inputs":[{"name":"X","shape":["1"],"data":"/w=="}]}',
        ),
    ),
    (
        identity.UpdatePrincipalRequest(
            principal=identity.Principal(name="principals/anna", disabled=True),
            update_mask=FieldMask(paths=["display_name", "disabled"]),
        ),
        HttpCall(
            "PATCH", "/v1/principals/anna?updateMask=displayName%2Cdisabled", b'{"disabled":true}'
        ),
    ),
]


@pytest.mark.parametrize(
    ("request_message", "expected"), CASES, ids=lambda v: getattr(v, "target", "")
)
def test_requests_follow_the_rules(request_message: object, expected: HttpCall) -> None:
    assert to_http(request_message) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_message", "expected"), CASES, ids=lambda v: getattr(v, "target", "")
)
def test_a_server_reads_back_the_request_that_was_made(
    request_message: object, expected: HttpCall
) -> None:
    read, _ = request_of(expected.method, expected.target, expected.body or b"")

    sent = type(request_message)()
    sent.CopyFrom(request_message)
    if isinstance(sent, repository.UploadArtifactRequest):
        sent.ClearField("artifact")
    assert read == sent


def test_a_name_that_fits_no_route_is_explained() -> None:
    for name in [
        "iris",
        "buckets/a/models/b/versions/",
        "buckets//models/x",
        "buckets/a/models/b/versions/1/x",
    ]:
        with pytest.raises(InvalidInput, match=r"buckets/\*/models/\*"):
            to_http(router.PredictRequest(name=name))


def test_hostile_characters_stay_inside_their_segment() -> None:
    call = to_http(repository.GetModelRequest(name="buckets/a?b#c/models/..%2f"))

    assert call.target == "/v1/buckets/a%3Fb%23c/models/..%252f"


def test_an_rpc_without_a_route_says_so() -> None:
    internal = next(
        rpc_of(GetMessageClass(method.input_type)())
        for service in fleet.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )
    with pytest.raises(InvalidInput, match="grpc://"):
        to_http(internal.request())


def test_every_rpc_that_clients_call_has_a_request_of_its_own() -> None:
    for service in SERVICES:
        for method in service.methods:
            assert (
                rpc_of(GetMessageClass(method.input_type)()).path
                == f"/{service.full_name}/{method.name}"
            )


def test_only_calls_that_change_nothing_are_repeatable() -> None:
    assert rpc_of(router.PredictRequest()).repeatable
    assert rpc_of(repository.ListModelsRequest()).repeatable
    assert not rpc_of(repository.CreateUploadRequest()).repeatable
    assert not rpc_of(repository.UploadArtifactRequest()).repeatable


def test_answers_of_a_newer_platform_are_understood() -> None:
    body = orjson.dumps({"model": {"name": MODEL, "latestVersion": "7", "news": 1}})

    answer = read_response(repository.GetModelRequest(), body)

    assert json_format.MessageToDict(answer) == {"model": {"name": MODEL, "latestVersion": "7"}}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"model": 3}', b"\xff"])
def test_an_answer_that_is_something_else_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(Internal, match="address"):
        read_response(repository.GetModelRequest(), body)
