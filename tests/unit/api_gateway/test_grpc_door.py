"""Which methods the gRPC door knows: those of the table, by their exact names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.api_gateway.grpc_door import door as grpc_door
from services.api_gateway.routing import exposed_services
from services.api_gateway.upstream.channels import Upstreams, loopback

UPSTREAMS: Any = Upstreams({}, lambda address: None)  # type: ignore[arg-type, return-value]
INFERENCE: Any = SimpleNamespace(infer=None, stream_infer=None)
DOOR = grpc_door.GrpcDoor(UPSTREAMS, INFERENCE)
GET_BUCKET = "/stellwerk.repository.v1.RepositoryService/GetBucket"


def known(method: str) -> bool:
    details: Any = SimpleNamespace(method=method)
    return DOOR.service(details) is not None


def test_it_knows_every_public_method_of_the_others_and_each_has_a_rule() -> None:
    passed = grpc_door.passed_methods()

    assert all(known(method) for method in passed)
    assert set(grpc_door.rules()) == set(passed)
    assert set(exposed_services.public_methods()) - set(passed) == {
        "/stellwerk.gateway.v1.GatewayService/ListRoutes",
        "/stellwerk.gateway.v1.GatewayService/ListUpstreams",
    }


@pytest.mark.parametrize(
    "method",
    [
        GET_BUCKET[1:],
        "/" + GET_BUCKET,
        GET_BUCKET + "/",
        GET_BUCKET.replace("/G", "//G"),
        GET_BUCKET.replace("/G", "/%47"),
        GET_BUCKET.lower(),
        "/x" + GET_BUCKET,
        "/stellwerk.controlplane.v1.IdentityService/GetTrust",
        "",
    ],
)
def test_it_knows_no_other_spelling_and_nothing_internal(method: str) -> None:
    assert not known(method)


def test_the_way_to_itself() -> None:
    assert loopback("0.0.0.0:8081", 8081) == "127.0.0.1:8081"
    assert loopback("[::]:0", 5) == "127.0.0.1:5"
    assert loopback("10.0.0.7:0", 6) == "10.0.0.7:6"
