"""Models of the repository. A version never changes; an alias is moved by compare-and-set."""

from __future__ import annotations

import builtins
import hashlib
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellwerk.client import packaging
from stellwerk.client.errors import AliasNotFound, Corrupt, InvalidInput
from stellwerk.client.naming import bucket_name, model_name
from stellwerk.client.resources.requirements import requirements
from stellwerk.client.resources.resource import Noun, S, pages
from stellwerk.client.resources.serving import serving_policy
from stellwerk.client.session.plan import Download, Plan, Progress, call, operation, upload, work
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.type.v1.serving_pb2 import ServingPolicy
from stellwerk.type.v1.tensor_pb2 import MethodSignature

if TYPE_CHECKING:
    from stellwerk.client.packaging.artifact import Package

_HASH_BYTES = 1 << 20


class Models(Noun[S]):
    """The models that the caller may see. A name is "iris" in the client's bucket, or
    "bucket/iris".
    """

    @operation
    def put(
        self,
        model: Any,
        name: str,
        *,
        example: Any = None,
        format: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        description: str = "",
        requires: Requirements | Mapping[str, Any] | None = None,
        options: Mapping[str, str] | None = None,
        signature: builtins.list[MethodSignature] | None = None,
        serving: ServingPolicy | Mapping[str, Any] | None = None,
        warmup: Any = None,
        alias: str | None = None,
        unsafe: bool = False,
        progress: Progress | None = None,
    ) -> Plan[pb.ModelVersion]:
        """Stores a model as the next version of `name` and returns that version.

        `model` is a scikit-learn estimator, a torch module (with `example`), an ONNX model, or the
        path of a file. `example` is a few rows of input; with it dtypes and shapes are exact.
        `requires` is what `runtime.require` takes, as a dict. `serving` says how it is served, such
        as `{"max_batch_size": 32, "response_cache": True}`; `warmup` is a few rows that are
        predicted right after loading. `alias` is pointed at the new version. Raises InvalidInput
        for what cannot be stored safely; nothing is visible before the whole artifact is stored.
        """
        target = model_name(name, self._bucket)
        with tempfile.TemporaryDirectory(prefix="stellwerk-") as folder:
            packed: Package = yield from work(
                lambda: packaging.package(
                    model, Path(folder), example=example, format=format, unsafe=unsafe
                )
            )
            digest = yield from work(lambda: _sha256(packed.path))
            declared = packed.signature if signature is None else signature
            described = pb.ModelVersion(
                format=packed.format,
                sha256=digest,
                size_bytes=packed.path.stat().st_size,
                signature=declared,
                requires=requires
                if isinstance(requires, Requirements)
                else requirements(**(requires or {})),
                labels=labels,
                metadata={**packed.metadata, **(metadata or {})},
                description=description,
                format_options=options,
                serving=serving_policy(serving, warmup, declared),
            )
            opened = yield from call(
                pb.CreateUploadRequest(parent=target.parent, model_version=described),
                pb.CreateUploadResponse,
            )
            request = pb.UploadArtifactRequest(name=opened.name)
            done = yield from upload(request, packed.path, pb.UploadArtifactResponse, progress)
        if alias is not None:
            yield from self._point(target.parent, done.model_version.version, alias)
        return done.model_version

    @operation
    def get(
        self,
        name: str,
        *,
        version: int | None = None,
        alias: str | None = None,
        unsafe: bool = False,
        progress: Progress | None = None,
    ) -> Plan[Any]:
        """The model itself: an estimator, an onnx.ModelProto or a torch ExportedProgram.

        torch's loader can be made to run code by a hostile file, so a program is loaded only with
        `unsafe=True`, which says that whoever stored it is trusted. Pickles are never loaded:
        `download` them.
        """
        found = yield from self._resolve(name, version, alias)
        with tempfile.TemporaryDirectory(prefix="stellwerk-") as folder:
            path = Path(folder) / packaging.file_name(found.format)
            yield from _fetch(found, path, progress)
            return (yield from work(lambda: packaging.load(path, found.format, unsafe)))

    @operation
    def download(
        self,
        name: str,
        path: str | Path,
        *,
        version: int | None = None,
        alias: str | None = None,
        progress: Progress | None = None,
    ) -> Plan[Path]:
        """Writes the model's artifact to `path`, checked against its digest; the file appears when
        it is whole.
        """
        found = yield from self._resolve(name, version, alias)
        target = Path(path)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            yield from _fetch(found, partial, progress)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    @operation
    def list(
        self, filter: str = "", *, bucket: str | None = None, limit: int | None = None
    ) -> Plan[builtins.list[pb.Model]]:
        """The models of a bucket by name. `filter` is like `name = "ir*" AND labels.stage =
        "test"`.
        """
        request = pb.ListModelsRequest(parent=bucket_name(bucket or self._bucket), filter=filter)
        return (yield from pages(request, pb.ListModelsResponse, lambda page: page.models, limit))

    @operation
    def info(self, name: str) -> Plan[pb.Model]:
        """The model with its aliases and the number of its newest version."""
        request = pb.GetModelRequest(name=model_name(name, self._bucket).parent)
        return (yield from call(request, pb.GetModelResponse)).model

    @operation
    def describe(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> Plan[pb.ModelVersion]:
        """A version with its signature, requirements and digest: the one given, or the one that
        `name` means now.
        """
        return (yield from self._resolve(name, version, alias))

    @operation
    def versions(
        self, name: str, *, limit: int | None = None
    ) -> Plan[builtins.list[pb.ModelVersion]]:
        """The versions of a model, newest first."""
        request = pb.ListModelVersionsRequest(parent=model_name(name, self._bucket).parent)
        return (
            yield from pages(
                request, pb.ListModelVersionsResponse, lambda page: page.model_versions, limit
            )
        )

    @operation
    def drop(self, name: str, *, version: int | None = None) -> Plan[None]:
        """Deletes one version that no alias points to, or the model with all its versions."""
        target = model_name(name, self._bucket, version)
        if target.version is not None:
            yield from call(
                pb.DeleteModelVersionRequest(name=str(target)), pb.DeleteModelVersionResponse
            )
        else:
            yield from call(pb.DeleteModelRequest(name=target.parent), pb.DeleteModelResponse)

    @operation
    def promote(
        self, name: str, version: int, alias: str = "production", *, etag: str | None = None
    ) -> Plan[pb.Alias]:
        """Points an alias at a version. Raises Conflict if it was moved meanwhile, or since `etag`
        was read.
        """
        target = model_name(name, self._bucket, version)
        return (yield from self._point(target.parent, int(version), alias, etag))

    @operation
    def aliases(self, name: str) -> Plan[builtins.list[pb.Alias]]:
        """The aliases of a model with their etags."""
        request = pb.ListAliasesRequest(parent=model_name(name, self._bucket).parent)
        return (yield from pages(request, pb.ListAliasesResponse, lambda page: page.aliases))

    @operation
    def drop_alias(self, name: str, alias: str, *, etag: str = "") -> Plan[None]:
        """Deletes an alias; the version stays."""
        target = model_name(name, self._bucket, alias=alias)
        yield from call(pb.DeleteAliasRequest(name=str(target), etag=etag), pb.DeleteAliasResponse)

    def _resolve(self, name: str, version: int | None, alias: str | None) -> Plan[pb.ModelVersion]:
        target = str(model_name(name, self._bucket, version, alias))
        found = yield from call(
            pb.ResolveModelVersionRequest(name=target), pb.ResolveModelVersionResponse
        )
        return found.model_version

    def _point(
        self, model: str, version: int, alias: str, etag: str | None = None
    ) -> Plan[pb.Alias]:
        name = str(model_name(model, self._bucket, alias=alias))
        if etag is None:
            try:
                read = yield from call(pb.GetAliasRequest(name=name), pb.GetAliasResponse)
                etag = read.alias.etag
            except AliasNotFound:
                etag = ""  # asks that it still does not exist
        request = pb.SetAliasRequest(alias=pb.Alias(name=name, version=version, etag=etag))
        return (yield from call(request, pb.SetAliasResponse)).alias


def _fetch(version: pb.ModelVersion, path: Path, progress: Progress | None) -> Plan[None]:
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent}", path=str(path.parent))
    yield Download(
        pb.DownloadArtifactRequest(name=version.name), path, version.size_bytes, progress
    )
    digest = yield from work(lambda: _sha256(path))
    if digest != version.sha256:
        raise Corrupt(
            "what arrived does not have the digest of what was stored; try again",
            expected=version.sha256,
            got=digest,
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()
