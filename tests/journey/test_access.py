"""Who may do what, over the whole surface: every public RPC and every REST route, without a token
and as a viewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from stellwerk.controlplane.v1 import (
    audit_service_pb2,
    controlplane_service_pb2,
    identity_service_pb2,
)
from stellwerk.gateway.v1 import gateway_service_pb2
from stellwerk.inference.v2 import grpc_service_pb2
from stellwerk.job.v1 import pull_service_pb2
from stellwerk.repository.v1 import repository_service_pb2
from stellwerk.router.v1 import call_service_pb2, fleet_service_pb2, router_service_pb2
from stellwerk.runtime.v1 import runtime_service_pb2
from stellwerk.status.v1 import status_service_pb2
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, INFERENCE_SERVICE, ROLES, rule_of
from tests.journey.stack import Platform

FILES = [
    audit_service_pb2, controlplane_service_pb2, identity_service_pb2, gateway_service_pb2,
    repository_service_pb2, router_service_pb2, fleet_service_pb2, pull_service_pb2,
    runtime_service_pb2, status_service_pb2,
    grpc_service_pb2, call_service_pb2,
]  # fmt: skip


# Any token opens its stream; what each request on it needs is asked of that request.
STREAM_INFER = f"/{INFERENCE_SERVICE}/ModelStreamInfer"
# Served by saying that it is not offered.
NOT_OFFERED = "SharedMemory"
WELL_FORMED = (
    b'{"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}]}'
)


def methods() -> Iterator[MethodDescriptor]:
    """Every RPC of the platform's own services."""
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def is_public(method: MethodDescriptor) -> bool:
    return any(
        field.full_name == "google.api.http" for field, _ in method.GetOptions().ListFields()
    )


def message_for(method: MethodDescriptor) -> bytes:
    """A request that names a resource in the field that the rule looks at."""
    from google.protobuf.message_factory import GetMessageClass

    message = GetMessageClass(method.input_type)()
    target: Any = message
    *parents, last = rule_of(method).resource.split(".")
    for parent in parents:
        target = getattr(target, parent)
    if last:
        ours = method.containing_service.full_name != INFERENCE_SERVICE
        setattr(target, last, "buckets/default/models/iris" if ours else "iris")
    return bytes(message.SerializeToString())


# The client's own error when a server ends a call before the client has sent its first message.
_LOST_RACE = "Internal error from Core"


async def status_of(
    channel: grpc.aio.Channel, method: MethodDescriptor, token: str
) -> grpc.StatusCode:
    """Returns the status that the server gives a call of the method."""
    for _ in range(20):
        error = await _error_of(channel, method, token)
        if error is None:
            return grpc.StatusCode.OK
        if error.details() != _LOST_RACE:
            return error.code()
    raise AssertionError(f"{path_of(method)}: the server always ends the call first")


async def _error_of(
    channel: grpc.aio.Channel, method: MethodDescriptor, token: str
) -> grpc.aio.AioRpcError | None:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    body = message_for(method)

    async def bodies() -> Any:
        yield body

    try:
        if method.client_streaming and method.server_streaming:
            await anext(
                aiter(
                    channel.stream_stream(path_of(method))(bodies(), metadata=metadata, timeout=10)
                ),
                None,
            )
        elif method.client_streaming:
            await channel.stream_unary(path_of(method))(bodies(), metadata=metadata, timeout=10)
        elif method.server_streaming:
            await anext(
                aiter(channel.unary_stream(path_of(method))(body, metadata=metadata, timeout=10)),
                None,
            )
        else:
            await channel.unary_unary(path_of(method))(body, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as exc:
        return exc
    return None


async def test_every_rpc_without_a_token_is_refused(platform: Platform) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        for method in methods():
            got = await status_of(channel, method, "")
            if not is_public(method) and "/stellwerk.status.v1." not in path_of(method):
                assert got is grpc.StatusCode.UNIMPLEMENTED, path_of(method)
            elif rule_of(method).permission != ANONYMOUS:
                assert got is grpc.StatusCode.UNAUTHENTICATED, path_of(method)


async def test_a_viewer_may_do_what_a_viewer_may_and_nothing_else(platform: Platform) -> None:
    token = platform.token_for("viewer")
    refused = 0
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        for method in filter(is_public, methods()):
            rule = rule_of(method)
            got = await status_of(channel, method, token)
            if rule.permission == ANONYMOUS:
                continue
            if rule.permission == AUTHENTICATED or rule.permission in ROLES["viewer"].permissions:
                assert got not in (
                    grpc.StatusCode.PERMISSION_DENIED,
                    grpc.StatusCode.UNAUTHENTICATED,
                ), rule
                assert (got is grpc.StatusCode.UNIMPLEMENTED) is (NOT_OFFERED in method.name), (
                    rule,
                    got,
                )
            else:
                refused += 1
                assert got is grpc.StatusCode.PERMISSION_DENIED, rule
    assert refused > 10


def routes(platform: Platform) -> list[dict[str, str]]:
    status, answer = platform.call("GET", "/v1/routes")
    assert status == 200
    assert len(answer["routes"]) > 40
    found: list[dict[str, str]] = answer["routes"]
    return found


def concrete(template: str) -> str:
    """A path that the template matches."""
    import re

    path = re.sub(r"\{[^=}]+=([^}]*)\}", lambda match: match.group(1), template)
    path = re.sub(r"\{[^}]+\}", "iris", path)
    return path.replace("/versions/*", "/versions/1").replace("**", "x").replace("*", "default")


def test_every_rest_route_without_a_token_is_refused(platform: Platform) -> None:
    for route in routes(platform):
        status, _, _ = platform.raw(
            route["httpMethod"], concrete(route["template"]), b"{}", token=""
        )
        if route["permission"] != ANONYMOUS:
            assert status == 401, route


def test_a_viewers_writes_are_refused_on_every_rest_route(platform: Platform) -> None:
    token = platform.token_for("viewer")
    permitted = ROLES["viewer"].permissions | {ANONYMOUS, AUTHENTICATED}
    for route in routes(platform):
        without = route["httpMethod"] in ("GET", "DELETE")
        body = None if without else WELL_FORMED if "/infer" in route["template"] else b"{}"
        status, _, data = platform.raw(
            route["httpMethod"], concrete(route["template"]), body, token=token
        )
        if route["permission"] == ANONYMOUS:
            continue
        assert (status == 501) is (NOT_OFFERED in route["rpc"]), (route, data)
        if route["permission"] in permitted and route["rpc"] != STREAM_INFER:
            assert status not in (401, 403), (route, data)
        else:
            assert status == 403, (route, data)


@pytest.mark.parametrize("bearer", ["nonsense", "swk_nokey_" + "x" * 43, "a.b.c", "x" * 9000])
def test_foreign_tokens_have_one_answer(platform: Platform, bearer: str) -> None:
    status, headers, body = platform.raw("GET", "/v1/buckets", token=bearer)

    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer")
    assert json.loads(body)["details"][0]["reason"] == "UNAUTHENTICATED"


def test_an_api_key_works_until_it_is_revoked(platform: Platform) -> None:
    from tests.journey.stack import eventually

    platform.call(
        "POST",
        "/v1/principals",
        {"name": "principals/app", "roles": [{"role": "viewer", "bucket": "*"}]},
    )
    _, key = platform.call("POST", "/v1/principals/app/keys", {"displayName": "app"})
    assert platform.call("GET", "/v1/buckets", token=key["secret"])[0] == 200

    status, _ = platform.call("POST", f"/v1/{key['apiKey']['name']}:revoke", {})

    assert status == 200
    eventually(
        lambda: platform.call("GET", "/v1/buckets", token=key["secret"])[0] == 401,
        8,
        "the key is refused",
    )


def test_a_role_on_one_bucket_does_not_reach_another(platform: Platform) -> None:
    platform.call("POST", "/v1/buckets", {"name": "buckets/team-a"})
    token = platform.token_for("editor", "team-a")

    assert platform.call("GET", "/v1/buckets/team-a/models", token=token)[0] == 200
    assert platform.call("GET", "/v1/buckets/default/models", token=token)[0] == 403
    _, listed = platform.call("GET", "/v1/buckets", token=token)
    assert [bucket["name"] for bucket in listed["buckets"]] == ["buckets/team-a"]


def test_changes_and_refusals_are_in_an_intact_ledger(platform: Platform) -> None:
    from tests.journey.stack import eventually

    token = platform.token_for("viewer")
    platform.call("POST", "/v1/buckets", {"name": "buckets/forbidden"}, token=token)
    platform.call("POST", "/v1/buckets", {"name": "buckets/audited"})

    def recorded() -> bool:
        _, answer = platform.call("GET", "/v1/audit/records?pageSize=200")
        outcomes = {(r["resource"], r["outcome"]) for r in answer["records"]}
        return {("buckets/forbidden", "NOT_PERMITTED"), ("buckets/audited", "OK")} <= outcomes

    eventually(recorded, 10, "both are recorded")
    _, verdict = platform.call("GET", "/v1/audit:verify")
    assert verdict["intact"] is True
    assert int(verdict["checked"]) > 2
