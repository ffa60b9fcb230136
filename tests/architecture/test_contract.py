"""The contract: access rules, HTTP, comments, compatibility and fresh generated code; each
violation planted once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from stellwerk.options.v1 import options_pb2
from tests.architecture.checks import contract
from tests.architecture.planting import ROOT, copy, expect_none
from tools import protos, protos_check

GATEWAY = "protos/stellwerk/gateway/v1/gateway_service.proto"
_ACCESS: Any = options_pb2.access
_HTTP: Any = annotations_pb2.http
CHECKS = [contract.access, contract.scopes, contract.public, contract.bindings]


@pytest.fixture
def descriptors() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "generated/stellwerk.binpb").read_bytes()
    )


def _rpc(
    descriptors: descriptor_pb2.FileDescriptorSet, name: str
) -> descriptor_pb2.MethodDescriptorProto:
    return next(
        rpc
        for file in descriptors.file
        for service in file.service
        for rpc in service.method
        if rpc.name == name
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_declares_everything(
    check, descriptors: descriptor_pb2.FileDescriptorSet
) -> None:
    expect_none(check(descriptors))


def test_an_rpc_without_access_rule_is_found(descriptors: descriptor_pb2.FileDescriptorSet) -> None:
    _rpc(descriptors, "GetModel").options.ClearExtension(_ACCESS)

    found = contract.access(descriptors)

    assert found == [
        "stellwerk.repository.v1.RepositoryService.GetModel: declares no access rule",
        "stellwerk.repository.v1.RepositoryService.GetModel: declares no effect",
    ]


def test_a_permission_that_no_role_holds_is_found(
    descriptors: descriptor_pb2.FileDescriptorSet,
) -> None:
    _rpc(descriptors, "GetModel").options.Extensions[_ACCESS].permission = "models.admire"

    assert contract.access(descriptors) == [
        "stellwerk.repository.v1.RepositoryService.GetModel: no role holds the permission"
        ' "models.admire"'
    ]


def test_an_rpc_without_effect_is_found(descriptors: descriptor_pb2.FileDescriptorSet) -> None:
    _rpc(descriptors, "GetModel").options.Extensions[_ACCESS].ClearField("effect")

    assert contract.access(descriptors) == [
        "stellwerk.repository.v1.RepositoryService.GetModel: declares no effect"
    ]


@pytest.mark.parametrize("resource", ["nome", "name.first", "version"])
def test_a_resource_that_the_request_lacks_is_found(
    descriptors: descriptor_pb2.FileDescriptorSet, resource: str
) -> None:
    rpc = _rpc(descriptors, "Predict")
    rpc.options.Extensions[_ACCESS].resource = resource.replace("version", "requires")

    assert len(contract.scopes(descriptors)) == 1


def test_a_public_rpc_without_http_is_found(descriptors: descriptor_pb2.FileDescriptorSet) -> None:
    _rpc(descriptors, "GetModel").options.ClearExtension(_HTTP)

    assert contract.public(descriptors) == [
        "stellwerk.repository.v1.RepositoryService.GetModel: is public and carries no"
        " google.api.http"
    ]


@pytest.mark.parametrize("name", ["Attach", "AppendRecords", "Exchange", "Describe"])
def test_an_internal_rpc_with_http_is_found(
    descriptors: descriptor_pb2.FileDescriptorSet, name: str
) -> None:
    _rpc(descriptors, name).options.Extensions[_HTTP].get = "/v1/inside"

    found = contract.public(descriptors)

    assert len(found) == 1
    assert f".{name}: is internal" in found[0]


def test_two_rpcs_on_one_path_are_found(descriptors: descriptor_pb2.FileDescriptorSet) -> None:
    path = _rpc(descriptors, "GetRuntime").options.Extensions[_HTTP].get
    _rpc(descriptors, "GetModel").options.Extensions[_HTTP].get = path.replace("{name", "{model")

    assert len(contract.bindings(descriptors)) == 1


def test_a_path_outside_the_versions_is_found(
    descriptors: descriptor_pb2.FileDescriptorSet,
) -> None:
    _rpc(descriptors, "ListRuntimes").options.Extensions[_HTTP].get = "/runtimes"

    assert "neither under /v1 nor under /v2" in contract.bindings(descriptors)[0]


def test_the_contract_passes_lint_breaks_nothing_and_generated_is_fresh() -> None:
    expect_none(protos_check.problems())


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "  // The path template.\n",
            "",
            'lint: stellwerk/gateway/v1/gateway_service.proto:40:3:Field "template"',
        ),
        ("// One route.\n", "", 'Message "Route" should have a non-empty comment'),
        (
            "  // Lists the REST routes and the RPCs they call.\n",
            "",
            'RPC "ListRoutes" should have a non-empty',
        ),
        ("string template = 2;", "string pathTemplate = 2;", "should be lower_snake_case"),
        ("string template = 2;", "bytes template = 2;", 'changed type from "string" to "bytes"'),
        (
            "string template = 2;",
            "string template = 9;",
            'field "2" with name "template" on message "Route" was deleted',
        ),
        (
            "rpc ListRoutes(",
            "rpc ListPaths(",
            'RPC "ListRoutes" on service "GatewayService" was deleted',
        ),
        (
            "string template = 2;",
            "string template = 2;\n  // New.\n  string note = 9;",
            "generated/ is stale",
        ),
    ],
)
def test_a_planted_change_of_the_contract_is_found(
    tmp_path: Path, old: str, new: str, finding: str
) -> None:
    root = copy(tmp_path, "protos")
    text = (root / GATEWAY).read_text()
    assert old in text
    (root / GATEWAY).write_text(text.replace(old, new))

    found = protos_check.problems(root / "protos", protos.GENERATED, root / "protos/baseline.binpb")

    assert any(finding in line for line in found), found


def test_an_added_field_breaks_nothing(tmp_path: Path) -> None:
    root = copy(tmp_path, "protos")
    text = (root / GATEWAY).read_text()
    (root / GATEWAY).write_text(
        text.replace("string template = 2;", "string template = 2;\n  // New.\n  string note = 9;")
    )

    found = protos_check.problems(root / "protos", protos.GENERATED, root / "protos/baseline.binpb")

    assert [line for line in found if not line.startswith("generated/")] == []


def test_a_file_that_protoc_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.proto").write_text("syntax = 'proto3'; message {")

    with pytest.raises(protos.Uncompilable):
        protos_check.problems(tmp_path)


@pytest.mark.parametrize("damage", ["edited", "left over", "missing"])
def test_generated_code_that_is_not_what_protoc_writes_is_found(
    tmp_path: Path, damage: str
) -> None:
    generated = tmp_path / "generated"
    shutil.copytree(protos.GENERATED, generated)
    victim = generated / "stellwerk/gateway/v1/gateway_service_pb2.py"
    if damage == "edited":
        victim.write_text(victim.read_text() + "# by hand\n")
    elif damage == "missing":
        victim.unlink()
    else:
        victim = victim.with_name("removed_service_pb2.py")
        victim.touch()

    assert protos.stale(generated=generated) == [str(victim.relative_to(generated))]
