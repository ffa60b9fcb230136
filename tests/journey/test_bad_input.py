"""Bad input has one answer, whichever door it comes through, and changes nothing."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.api_gateway.http.status import HTTP_STATUS
from stellwerk.client import Client, errors
from stellwerk.inference.v2 import grpc_service_pb2 as oip
from stellwerk.inference.v2 import grpc_service_pb2_grpc as oip_stubs
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.repository.v1 import repository_service_pb2_grpc as repository_stubs
from stellwerk.wire import names
from tests.journey.stack import Platform, eventually


def tensor(**changes: Any) -> dict[str, Any]:
    return {
        "name": "X",
        "shape": [1, 4],
        "datatype": "FP64",
        "data": [1.0, 2.0, 3.0, 4.0],
        **changes,
    }


CASES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "unknown model": ("nobody", "", [tensor()]),
    "unknown bucket": ("nowhere:iris", "", [tensor()]),
    "unknown version": ("iris", "99", [tensor()]),
    "unknown alias": ("iris", "nothing", [tensor()]),
    "unknown tensor": ("iris", "", [tensor(name="Z")]),
    "unknown datatype": ("iris", "", [tensor(datatype="FLOAT")]),
    "other datatype": ("iris", "", [tensor(datatype="FP32")]),
    "other shape": ("iris", "", [tensor(shape=[1, 3], data=[1.0, 2.0, 3.0])]),
    "other rank": ("iris", "", [tensor(shape=[4])]),
    "negative shape": ("iris", "", [tensor(shape=[-1, 4])]),
    "overflowing shape": ("iris", "", [tensor(shape=[2**62, 2**62, 0], data=[])]),
    "overflowing product": ("iris", "", [tensor(shape=[2**33, 2**33], data=[])]),
    "65 dimensions": ("iris", "", [tensor(shape=[1] * 65, data=[1.0])]),
    "missing data": ("iris", "", [tensor(data=[1.0])]),
    "extra data": ("iris", "", [tensor(data=[1.0] * 5)]),
    "missing input": ("iris", "", []),
    "input given twice": ("iris", "", [tensor(), tensor()]),
    "hostile name": ("../../etc/passwd", "", [tensor()]),
    "name with NUL": ("iris\0", "", [tensor()]),
    "overlong name": ("x" * 4000, "", [tensor()]),
}


def over_rest(
    platform: Platform, model: str, version: str, inputs: list[dict[str, Any]]
) -> tuple[int, str]:
    from urllib.parse import quote

    path = (
        f"/v2/models/{quote(model, safe='')}"
        + (f"/versions/{version}" if version else "")
        + "/infer"
    )
    status, _, data = platform.raw("POST", path, json.dumps({"inputs": inputs}).encode())
    return status, json.loads(data).get("error", "")


def over_grpc(
    platform: Platform, model: str, version: str, inputs: list[dict[str, Any]]
) -> grpc.StatusCode:
    request = oip.ModelInferRequest(model_name=model, model_version=version)
    for given in inputs:
        added = request.inputs.add(
            name=given["name"], datatype=given["datatype"], shape=given["shape"]
        )
        added.contents.fp64_contents.extend(given["data"])
        if given["datatype"] == "FP32":
            added.ClearField("contents")
            added.contents.fp32_contents.extend(given["data"])
    metadata = (("authorization", f"Bearer {platform.token}"),)
    with grpc.insecure_channel(platform.grpc) as channel:
        try:
            oip_stubs.GRPCInferenceServiceStub(channel).ModelInfer(
                request, metadata=metadata, timeout=20
            )
        except grpc.RpcError as exc:
            code: grpc.StatusCode = exc.code()
            return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_request_is_the_callers_error_on_both_doors(
    platform: Platform, iris_stored: str, case: str
) -> None:
    code = over_grpc(platform, *CASES[case])
    status, message = over_rest(platform, *CASES[case])

    expected = grpc.StatusCode.NOT_FOUND if case.startswith("unknown ") and case.split()[1] in (
        "model", "bucket", "version", "alias") else grpc.StatusCode.INVALID_ARGUMENT  # fmt: skip
    assert code is expected
    assert status == HTTP_STATUS[expected]
    assert message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", "/v2/models/iris/infer"),
        (b"[]", "/v2/models/iris/infer"),
        (b"\xff\xfe", "/v2/models/iris/infer"),
        (b'{"inputs": 3}', "/v2/models/iris/infer"),
        (b"{", "/v1/buckets/default/models/iris:predict"),
        (b'{"unknown": 1}', "/v1/buckets/default/models/iris:predict"),
        (b'{"instances": "x"}', "/v1/buckets/default/models/iris:predict"),
        (b'{"instances": [[1, 2]]}', "/v1/buckets/default/models/iris:predict"),
        (b'{"instances": [[1, 2], [3]]}', "/v1/buckets/default/models/iris:predict"),
        (b'{"instances": [["a", "b", "c", "d"]]}', "/v1/buckets/default/models/iris:predict"),
        (
            b'{"method": "fly", "instances": [[1, 2, 3, 4]]}',
            "/v1/buckets/default/models/iris:predict",
        ),
        (b'{"name": "buckets/../x"}', "/v1/buckets"),
    ],
)
def test_a_malformed_body_is_a_400(
    platform: Platform, iris_stored: str, body: bytes, path: str
) -> None:
    status, _, data = platform.raw("POST", path, body)

    assert status == 400, data
    assert b"Traceback" not in data


def test_a_body_over_the_limit_is_refused_early(platform: Platform) -> None:
    status, _, data = platform.raw(
        "POST", "/v1/buckets/default/models/iris:predict", b" " * (65 * 1024 * 1024)
    )

    assert status == 413
    assert json.loads(data)["details"][0]["reason"] == "TOO_LARGE"


def test_a_compression_bomb_is_refused(platform: Platform) -> None:
    import gzip

    bomb = gzip.compress(b" " * (200 * 1024 * 1024))
    status, _, _ = platform.raw(
        "POST", "/v1/buckets/default/models/iris:predict", bomb, Content_Encoding="gzip"
    )

    assert status == 413


@pytest.mark.parametrize(
    "name", ["..", "a/b", "a b", ".hidden", "x" * 64, "a..b", "ü", "-a", "a\n"]
)
def test_hostile_model_names_store_nothing(sw: Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.InvalidInput):
        names.check_id(name, "model")
    before = [model.name for model in sw.models.list()]
    artifact = tmp_path / "model.onnx"
    artifact.write_bytes(b"\x08\x09")
    with pytest.raises(errors.ServiceError):
        sw.models.put(artifact, name, format="onnx")
    assert [model.name for model in sw.models.list()] == before


def upload(platform: Platform, data: bytes, **described: Any) -> repository.ModelVersion:
    """Two calls, as any client makes them."""
    metadata = (("authorization", f"Bearer {platform.token}"),)
    with grpc.insecure_channel(platform.grpc) as channel:
        stub = repository_stubs.RepositoryServiceStub(channel)
        version = repository.ModelVersion(**described)
        parent = "buckets/default/models/bad"
        opened = stub.CreateUpload(
            repository.CreateUploadRequest(parent=parent, model_version=version),
            metadata=metadata,
            timeout=10,
        )
        pieces = [repository.UploadArtifactRequest(name=opened.name)]
        pieces[0].artifact.data = data
        answer: repository.ModelVersion = stub.UploadArtifact(
            iter(pieces), metadata=metadata, timeout=20
        ).model_version
        return answer


def reason_of(exc: grpc.RpcError) -> str:
    status = status_pb2.Status.FromString(dict(exc.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason)


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_pretends_to_be_skops_is_refused_and_never_run(
    platform: Platform, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(grpc.RpcError) as caught:
            upload(platform, pickle.dumps(Payload(canary), protocol), format="skops")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not canary.exists()
    assert platform.call("GET", "/v1/buckets/default/models/bad")[0] == 404


def test_an_artifact_with_another_digest_is_refused_and_leaves_nothing(platform: Platform) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        upload(platform, b"\x08\x09abc", format="onnx", sha256=hashlib.sha256(b"other").hexdigest())

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert platform.call("GET", "/v1/buckets/default/models/bad")[0] == 404


def test_code_formats_need_their_own_permission_and_a_runtime_that_allows_them(
    platform: Platform,
) -> None:
    from stellwerk.client import connect

    with (
        connect(platform.http, platform.token_for("editor")) as editor,
        pytest.raises(errors.NotPermitted),
    ):
        editor.models.put({"any": "object"}, "pickled", format="pickle", unsafe=True)
    with connect(platform.http, platform.token) as admin:
        admin.models.put({"any": "object"}, "pickled", format="pickle", unsafe=True)
        with pytest.raises(errors.ServiceError) as caught:
            admin.runtime.model("pickled").predict([[1.0]])
        admin.models.drop("pickled")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_after_all_of_it_the_platform_is_well(platform: Platform, iris_stored: str) -> None:
    def well() -> bool:
        status, answer = platform.call("GET", "/v1/status")
        return status == 200 and bool(answer["ready"])

    eventually(well, 20, "every service is ready")
    status, _ = platform.call(
        "POST", "/v1/buckets/default/models/iris:predict", {"instances": [[1, 2, 3, 4]]}
    )
    assert status == 200
