"""A platform in memory for the SDK's tests: the repository's and router's behaviour that clients
see, no more.

`FakePlatform` answers request messages; `serve_grpc` and `serve_http` put it behind real servers on
127.0.0.1.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
import orjson
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from stellwerk.client.packaging import estimator
from stellwerk.client.transport.rpc import Rpc, rpc_of
from stellwerk.controlplane.v1 import (
    audit_service_pb2,
    controlplane_service_pb2,
    identity_service_pb2,
)
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.wire import errors, names, tensors

TOKEN = "header.payload.signature"
API_KEY = "swk_0123456789abcdef_" + "k" * 43
SERVICES = [
    repository.DESCRIPTOR.services_by_name["RepositoryService"],
    router.DESCRIPTOR.services_by_name["RouterService"],
    identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    controlplane_service_pb2.DESCRIPTOR.services_by_name["ControlPlaneService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
]
HTTP_STATUS = {
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    12: 501,
    13: 500,
    14: 503,
    16: 401,
}
BUCKETS = {"default"}


class FakePlatform:
    """Models, aliases and predictions in memory. `failures` are raised before the next calls,
    oldest first.
    """

    def __init__(self) -> None:
        self.failures: list[errors.ServiceError] = []
        self.calls: list[str] = []
        self.uploads: dict[str, repository.ModelVersion] = {}
        self.versions: dict[str, list[repository.ModelVersion]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.aliases: dict[str, repository.Alias] = {}
        self.requires: list[Any] = []

    def handle(self, request: Message, authorization: str, body: bytes = b"") -> Message:
        self.calls.append(type(request).__name__)
        if self.failures:
            raise self.failures.pop(0)
        name = re.sub(
            r"(?<!^)(?=[A-Z])", "_", type(request).__name__.removesuffix("Request")
        ).lower()
        if name != "issue_token" and authorization not in (f"Bearer {TOKEN}", f"Bearer {API_KEY}"):
            raise errors.Unauthenticated("a valid bearer token is needed")
        method = getattr(self, f"_{name}")
        answer: Message = method(request, body) if name == "upload_artifact" else method(request)
        return answer

    def _issue_token(self, request: Any) -> Message:
        if request.api_key != API_KEY:
            raise errors.Unauthenticated("this API key is not known")
        return identity_service_pb2.IssueTokenResponse(
            access_token=TOKEN, token_type="Bearer", expires_in=600
        )

    def _get_caller(self, request: Any) -> Message:
        return identity_service_pb2.GetCallerResponse(principal="principals/anna")

    def _get_status(self, request: Any) -> Message:
        return controlplane_service_pb2.GetStatusResponse(
            ready=False,
            reasons=["every runtime is draining"],
            runtimes=[router.Runtime(name="runtimes/a", draining=True)],
            broker="pull",
        )

    def _list_runtimes(self, request: Any) -> Message:
        return router.ListRuntimesResponse(
            runtimes=[router.Runtime(name="runtimes/a", cpu_cores=2)]
        )

    def _verify(self, request: Any) -> Message:
        return audit_service_pb2.VerifyResponse(
            intact=True, checked=3, last_sequence=3, last_hash="ab"
        )

    def _create_upload(self, request: Any) -> Message:
        name = f"{request.parent}/uploads/u{len(self.uploads) + 1}"
        self.uploads[name] = request.model_version
        return repository.CreateUploadResponse(name=name)

    def _upload_artifact(self, request: Any, body: bytes) -> Message:
        described = self.uploads[request.name]
        if (
            hashlib.sha256(body).hexdigest() != described.sha256
            or len(body) != described.size_bytes
        ):
            raise errors.Corrupt("the artifact does not have the digest that was announced")
        model = request.name.partition("/uploads/")[0]
        versions = self.versions.setdefault(model, [])
        version = repository.ModelVersion()
        version.CopyFrom(described)
        version.version = len(versions) + 1
        version.name = f"{model}/versions/{version.version}"
        version.create_time.GetCurrentTime()
        versions.append(version)
        self.artifacts[version.name] = body
        return repository.UploadArtifactResponse(model_version=version)

    def _download_artifact(self, request: Any) -> Message:
        data = self.artifacts[self._find(request.name).name]
        answer = repository.DownloadArtifactResponse()
        answer.artifact.data = data
        return answer

    def _find(self, name: str) -> repository.ModelVersion:
        parsed = names.parse_model(name)
        versions = self.versions.get(parsed.parent)
        if not versions:
            raise errors.ModelNotFound(f"there is no model {name}", model=name)
        number = parsed.version or len(versions)
        if parsed.alias:
            alias = self.aliases.get(name)
            if alias is None:
                raise errors.AliasNotFound(f"there is no alias {name}", alias=name)
            number = alias.version
        if number > len(versions):
            raise errors.VersionNotFound(f"there is no version {name}", version=name)
        return versions[number - 1]

    def _resolve_model_version(self, request: Any) -> Message:
        return repository.ResolveModelVersionResponse(model_version=self._find(request.name))

    def _list_models(self, request: Any) -> Message:
        found = sorted(model for model in self.versions if model.startswith(request.parent + "/"))
        start = int(request.page_token or 0)
        page = found[start : start + request.page_size]
        more = str(start + len(page)) if start + len(page) < len(found) else ""
        models = [
            repository.Model(name=model, latest_version=len(self.versions[model])) for model in page
        ]
        return repository.ListModelsResponse(models=models, next_page_token=more)

    def _list_model_versions(self, request: Any) -> Message:
        return repository.ListModelVersionsResponse(
            model_versions=reversed(self.versions[request.parent])
        )

    def _delete_model(self, request: Any) -> Message:
        self._find(request.name)
        del self.versions[request.name]
        return repository.DeleteModelResponse()

    def _get_alias(self, request: Any) -> Message:
        if request.name not in self.aliases:
            raise errors.AliasNotFound(f"there is no alias {request.name}", alias=request.name)
        return repository.GetAliasResponse(alias=self.aliases[request.name])

    def _set_alias(self, request: Any) -> Message:
        current = self.aliases.get(request.alias.name)
        if request.alias.etag not in ("*", current.etag if current else ""):
            raise errors.Conflict(
                "the alias was moved meanwhile; read it again", alias=request.alias.name
            )
        moved = repository.Alias(name=request.alias.name, version=request.alias.version)
        moved.etag = str(int(current.etag) + 1) if current else "1"
        self.aliases[moved.name] = moved
        return repository.SetAliasResponse(alias=moved)

    def _create_bucket(self, request: Any) -> Message:
        return repository.CreateBucketResponse(bucket=request.bucket)

    def _predict(self, request: Any) -> Message:
        self.requires.append(request.requires)
        version = self._find(request.name)
        signature = {entry.method: entry for entry in version.signature}[request.method]
        tensors.check_against(request.inputs, signature.inputs)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self.artifacts[version.name])
            model = estimator.load(Path(file.name))
        inputs = [tensors.to_numpy(tensor) for tensor in request.inputs]
        value = getattr(model, request.method)(*inputs)
        output = tensors.from_numpy(request.method, [value] if request.method == "score" else value)
        return router.PredictResponse(
            model_version=version.name, outputs=[output], runtime="runtimes/a"
        )


def _rpcs() -> Iterator[Rpc]:
    for service in SERVICES:
        for method in service.methods:
            yield rpc_of(GetMessageClass(method.input_type)())


def rich_status(error: errors.ServiceError) -> status_pb2.Status:
    """The error as the platform's services put it on the wire."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=errors.DOMAIN, metadata=error.metadata
        )
    ]
    if error.retry_after:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after)
        details.append(retry)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


class _GrpcEdge(grpc.GenericRpcHandler):
    def __init__(self, platform: FakePlatform) -> None:
        self._platform = platform
        self._rpcs = {rpc.path: rpc for rpc in _rpcs()}

    def service(self, details: Any) -> Any:
        rpc = self._rpcs[details.method]
        token = dict(details.invocation_metadata).get("authorization", "")
        codec = {
            "request_deserializer": rpc.request.FromString,
            "response_serializer": rpc.response.SerializeToString,
        }

        def answer(request: Message, context: Any, body: bytes = b"") -> Any:
            try:
                return self._platform.handle(request, token, body)
            except errors.ServiceError as error:
                data = rich_status(error).SerializeToString()
                context.set_trailing_metadata((("grpc-status-details-bin", data),))
                context.abort(error.code, error.message)

        def collect(requests: Iterator[Any], context: Any) -> Any:
            pieces = list(requests)
            return answer(pieces[0], context, b"".join(piece.artifact.data for piece in pieces))

        def split(request: Any, context: Any) -> Iterator[Any]:
            data = answer(request, context).artifact.data
            for start in range(0, len(data), 1000):
                piece = repository.DownloadArtifactResponse()
                piece.artifact.data = data[start : start + 1000]
                yield piece

        if details.method.endswith("/UploadArtifact"):
            return grpc.stream_unary_rpc_method_handler(collect, **codec)
        if details.method.endswith("/DownloadArtifact"):
            return grpc.unary_stream_rpc_method_handler(split, **codec)
        return grpc.unary_unary_rpc_method_handler(answer, **codec)


@contextmanager
def serve_grpc(platform: FakePlatform) -> Iterator[str]:
    """The address of a gRPC server in front of the platform."""
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((_GrpcEdge(platform),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def _match(method: str, path: str) -> tuple[Rpc, Any, dict[str, str]] | None:
    for rpc in _rpcs():
        for route in rpc.routes:
            pattern, fields = "", []
            for literal, field, shape in re.findall(
                r"([^{]*)(?:\{([\w.]+)=?([^}]*)\})?", route.template
            ):
                pattern += re.escape(literal)
                if field:
                    fields.append(field)
                    pattern += "(" + (shape or "*").replace("*", "[^/:]+") + ")"
            found = re.fullmatch(pattern, path)
            if found and route.http_method == method:
                return rpc, route, dict(zip(fields, map(unquote, found.groups()), strict=True))
    return None


def request_of(method: str, target: str, body: bytes) -> tuple[Message, bytes]:
    """The request message that an HTTP request stands for, and its raw body if it has one."""
    parts = urlsplit(target)
    matched = _match(method, parts.path)
    if matched is None:
        raise errors.RouteNotFound(f"there is no route {method} {parts.path}")
    rpc, route, fields = matched
    raw = b""
    content: dict[str, Any] = {}
    if route.body == "artifact":
        raw = body
    elif route.body == "*":
        content = orjson.loads(body)
    elif route.body:
        content = {route.body: orjson.loads(body)}
    for path, value in [*parse_qsl(parts.query, strict_parsing=bool(parts.query)), *fields.items()]:
        inner = content
        *parents, last = path.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return json_format.ParseDict(content, rpc.request()), raw


class _HttpEdge(BaseHTTPRequestHandler):
    platform: FakePlatform
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            request, raw = request_of(self.command, self.path, body)
            answer = self.platform.handle(request, self.headers.get("authorization", ""), raw)
            if isinstance(answer, repository.DownloadArtifactResponse):
                self._send(200, answer.artifact.data, "application/octet-stream")
            else:
                self._send(200, json_format.MessageToJson(answer).encode())
        except errors.ServiceError as error:
            status = json_format.MessageToDict(rich_status(error)) | {"status": error.code.name}
            wait = {"retry-after": f"{error.retry_after / 1000:g}"} if error.retry_after else {}
            self._send(HTTP_STATUS[error.code.value[0]], orjson.dumps(status), **wait)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        for key, value in {
            "content-type": kind,
            "content-length": str(len(body)),
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_http(platform: FakePlatform) -> Iterator[str]:
    """The address of an HTTP server in front of the platform."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Edge", (_HttpEdge,), {"platform": platform})
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
