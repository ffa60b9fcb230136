"""The authorisation map: grants, buckets, access rules read from descriptors."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.controlplane.v1 import audit_service_pb2
from stellwerk.inference.v2 import grpc_service_pb2
from stellwerk.repository.v1 import repository_service_pb2
from stellwerk.router.v1 import fleet_service_pb2, router_service_pb2
from stellwerk.wire import permissions
from stellwerk.wire.errors import NotPermitted
from stellwerk.wire.permissions import (
    Grant,
    Rule,
    UndeclaredRpc,
    authorise,
    permits,
    rule_of,
    rules_of,
)

REPOSITORY = repository_service_pb2.DESCRIPTOR.services_by_name["RepositoryService"]
ROUTER = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"]
FLEET = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
INFERENCE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
AUDIT = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]

roles = st.sampled_from(sorted(permissions.ROLES))
words = st.sampled_from(
    sorted({word for role in permissions.ROLES.values() for word in role.permissions})
)
buckets = st.sampled_from(["", "default", "team-a", "team-b"])


def test_a_grant_on_all_buckets_holds_in_each_and_platform_wide() -> None:
    grants = [Grant("editor")]

    assert permits(grants, "models.write", "team-a")
    assert permits(grants, "models.write", "")


def test_a_grant_on_one_bucket_holds_there_alone() -> None:
    grants = [Grant("editor", "team-a")]

    assert permits(grants, "models.write", "team-a")
    assert not permits(grants, "models.write", "team-b")
    assert not permits(grants, "models.write", "")


def test_a_bucket_cannot_be_named_after_the_star_to_gain_all() -> None:
    assert not permits([Grant("editor", "team-a")], "models.write", "*")


def test_a_grant_on_the_empty_bucket_holds_nowhere() -> None:
    assert not permits([Grant("editor", "")], "models.write", "")


@pytest.mark.parametrize(("bucket", "where"), [("team-a", " on buckets/team-a"), ("", "")])
def test_a_refusal_names_the_permission_and_where_it_is_missing(bucket: str, where: str) -> None:
    with pytest.raises(NotPermitted) as refused:
        authorise([Grant("viewer", "team-b")], "infer", bucket)

    assert refused.value.message == (
        f"this needs the permission infer{where}; ask an administrator for a role that has it"
    )
    assert refused.value.metadata == {"permission": "infer"}


def test_an_unknown_role_permits_nothing() -> None:
    assert not permits([Grant("emperor")], "models.read", "team-a")


@given(
    st.lists(st.builds(Grant, roles, st.sampled_from(["*", "team-a", "team-b"]))), words, buckets
)
def test_permission_comes_from_exactly_the_grants_in_scope(
    grants: list[Grant], word: str, bucket: str
) -> None:
    expected = any(
        word in permissions.ROLES[grant.role].permissions
        and grant.bucket in ({"*", bucket} if bucket else {"*"})
        for grant in grants
    )

    assert permits(grants, word, bucket) is expected


@given(st.builds(Grant, roles), words, buckets)
def test_a_further_grant_never_takes_a_permission_away(
    grant: Grant, word: str, bucket: str
) -> None:
    assert not permits([grant], word, bucket) or permits([Grant("viewer"), grant], word, bucket)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("viewer", "editor"),
        ("caller", "editor"),
        ("editor", "publisher"),
        ("editor", "operator"),
        ("operator", "admin"),
    ],
)
def test_each_role_permits_what_the_smaller_one_does(smaller: str, larger: str) -> None:
    assert permissions.ROLES[smaller].permissions < permissions.ROLES[larger].permissions


def test_only_publishers_and_administrators_may_store_formats_that_run_code() -> None:
    holders = {
        name
        for name, role in permissions.ROLES.items()
        if "models.write_unsafe" in role.permissions
    }

    assert holders == {"publisher", "admin"}


@pytest.mark.parametrize("word", ["runtimes.attach", "audit.write", "broker.exchange"])
def test_no_person_holds_a_permission_of_the_platform_itself(word: str) -> None:
    assert all(role.service for role in permissions.ROLES.values() if word in role.permissions)


def test_no_service_may_change_models_or_access() -> None:
    for role in permissions.ROLES.values():
        if role.service:
            assert not role.permissions & {
                "models.write",
                "models.write_unsafe",
                "buckets.write",
                "access.write",
            }


def test_the_map_holds_every_rpc_and_the_health_check() -> None:
    rules = rules_of([REPOSITORY, ROUTER])

    assert len(rules) == len(REPOSITORY.methods) + len(ROUTER.methods) + len(
        permissions.LIBRARY_RULES
    )
    assert rules["/stellwerk.router.v1.RouterService/Predict"] == Rule(
        "/stellwerk.router.v1.RouterService/Predict", "infer", "name", changes=False, internal=False
    )
    assert rules["/stellwerk.repository.v1.RepositoryService/DeleteModel"].changes
    assert rules["/grpc.health.v1.Health/Check"].permission == permissions.ANONYMOUS


def test_housekeeping_between_services_is_marked_internal() -> None:
    assert rules_of([FLEET])["/stellwerk.router.v1.FleetService/Attach"].internal
    assert rules_of([AUDIT])["/stellwerk.controlplane.v1.AuditService/AppendRecords"].internal


def test_the_resource_is_read_from_a_nested_field() -> None:
    rule = rules_of([REPOSITORY])["/stellwerk.repository.v1.RepositoryService/CreateBucket"]
    request = repository_service_pb2.CreateBucketRequest(
        bucket=repository_service_pb2.Bucket(name="buckets/team-a")
    )

    assert rule.resource_of(request) == "buckets/team-a"


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("iris", "buckets/default/models/iris"),
        ("team-a:iris", "buckets/team-a/models/iris"),
        (":iris", "buckets//models/iris"),
    ],
)
def test_a_model_of_the_open_inference_protocol_names_its_bucket(name: str, resource: str) -> None:
    rule = rules_of([INFERENCE])["/inference.GRPCInferenceService/ModelInfer"]

    assert rule.resource_of(grpc_service_pb2.ModelInferRequest(model_name=name)) == resource


def test_a_rule_without_resource_asks_platform_wide() -> None:
    rule = rules_of([ROUTER])["/stellwerk.router.v1.RouterService/ListRuntimes"]

    assert rule.resource_of(router_service_pb2.ListRuntimesRequest()) == ""


def test_a_stream_that_has_not_begun_has_no_resource() -> None:
    rule = rules_of([REPOSITORY])["/stellwerk.repository.v1.RepositoryService/UploadArtifact"]

    assert rule.resource_of(None) == ""


def test_an_rpc_without_access_rule_is_refused() -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="planted.proto", package="planted", syntax="proto3"
    )
    file.message_type.add(name="Nothing")
    file.service.add(name="Open").method.add(
        name="Door", input_type=".planted.Nothing", output_type=".planted.Nothing"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    with pytest.raises(UndeclaredRpc, match=r"/planted\.Open/Door"):
        rule_of(pool.FindServiceByName("planted.Open").methods[0])
