"""Models of the repository. A version never changes; an alias is moved by compare-and-set."""

from __future__ import annotations

import builtins
import hashlib
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stellwerk.client.errors import AliasNotFound, Corrupt, InvalidInput
from stellwerk.client.naming import bucket_name, model_name
from stellwerk.client.packaging import packagers
from stellwerk.client.resources.requirements import requirements
from stellwerk.client.resources.resource import Resource, S, pages
from stellwerk.client.resources.serving import serving_policy
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Download, Plan, Progress, call, upload, work
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.type.v1.serving_pb2 import ServingPolicy
from stellwerk.type.v1.tensor_pb2 import MethodSignature

# 1 MiB: a file is hashed in pieces of this size.
_HASH_BYTES = 1 << 20


class Models(Resource[S]):
    """The models that the caller may see.

    An argument `name` is "iris", in the client's bucket, or "bucket/iris"; any other text is
    refused with InvalidInput. Without `version` and `alias`, a name stands for the version that
    the alias "default" points to, or else for the newest. `progress` is called with the bytes done
    and the bytes in all, in a thread of its own if the client is asynchronous.
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

        `model` is a fitted scikit-learn estimator, a torch module, a torch ExportedProgram, an
        onnx.ModelProto, or the path of a file (.skops, .onnx, .pt2, .safetensors). `example` is a
        batch of inputs, rows first (a tuple of them for a torch module with several): it fixes
        dtypes and shapes, and a torch module is exported with it. `signature` replaces what is
        found out about inputs and outputs. `format="pickle"` with `unsafe=True` stores any object
        as a pickle, which runtimes load only where they are told to.

        `labels` are for filters, `metadata` and `description` for people, `options` for the
        format's loader. `requires` is a dict of the arguments of `runtime.require`. `serving` says
        how the model is served, such as `{"max_batch_size": 32, "response_cache": True}`;
        `warmup` is a batch of inputs that is predicted right after loading. `alias` is moved to the
        new version.

        The version becomes visible when its artifact is stored whole. Nothing is retried. Raises
        InvalidInput for a model that cannot be stored, UnsafeFormat for a pickle without
        `unsafe=True`, NotPermitted without the permission models.write. Raises Conflict if the
        alias was moved at the same time; the version is stored then.
        """
        target = model_name(name, self._bucket)
        with tempfile.TemporaryDirectory(prefix="stellwerk-") as folder:
            packed = yield from work(
                lambda: packagers.package(
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
        """Returns the model itself: an estimator, an onnx.ModelProto or a torch ExportedProgram.

        A hostile file can make torch's loader run code, so a program is loaded only with
        `unsafe=True`, which says that whoever stored it is trusted. Raises UnsafeFormat without
        it, InvalidInput for formats that are not loaded here (pickles among them: `download`
        them), ModelNotFound, VersionNotFound or AliasNotFound, Corrupt if the bytes do not have the
        digest of the version.
        """
        found = yield from self._resolve(name, version, alias)
        with tempfile.TemporaryDirectory(prefix="stellwerk-") as folder:
            path = Path(folder) / packagers.file_name(found.format)
            yield from _fetch(found, path, progress)
            return (yield from work(lambda: packagers.load(path, found.format, unsafe)))

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
        """Writes the model's artifact to `path` and returns that path.

        The file appears when it is whole and has the digest of the version. Raises InvalidInput if
        the folder does not exist, Corrupt if the digest differs, ModelNotFound, VersionNotFound or
        AliasNotFound.
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
        """Returns the models of a bucket in the order of their names, or the first `limit` of them.

        `filter` is such as `name = "ir*" AND labels.stage = "test"`. Raises InvalidInput for a
        filter that is none, BucketNotFound.
        """
        request = pb.ListModelsRequest(parent=bucket_name(bucket or self._bucket), filter=filter)
        return (yield from pages(request, pb.ListModelsResponse, lambda page: page.models, limit))

    @operation
    def info(self, name: str) -> Plan[pb.Model]:
        """Returns the model with its aliases and the number of its newest version. Raises
        ModelNotFound.
        """
        request = pb.GetModelRequest(name=model_name(name, self._bucket).parent)
        return (yield from call(request, pb.GetModelResponse)).model

    @operation
    def describe(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> Plan[pb.ModelVersion]:
        """Returns a version with its signature, requirements and digest. Raises ModelNotFound,
        VersionNotFound or AliasNotFound.
        """
        return (yield from self._resolve(name, version, alias))

    @operation
    def versions(
        self, name: str, *, limit: int | None = None
    ) -> Plan[builtins.list[pb.ModelVersion]]:
        """Returns the versions of a model, newest first, or the first `limit` of them."""
        request = pb.ListModelVersionsRequest(parent=model_name(name, self._bucket).parent)
        return (
            yield from pages(
                request, pb.ListModelVersionsResponse, lambda page: page.model_versions, limit
            )
        )

    @operation
    def drop(self, name: str, *, version: int | None = None) -> Plan[None]:
        """Deletes one version, or the model with all its versions if `version` is None.

        Raises NotReady while an alias points to the version, ModelNotFound or VersionNotFound.
        """
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
        """Points an alias at a version and returns the alias.

        Raises Conflict if another moved the alias at the same time or, with `etag`, since that was
        read; VersionNotFound.
        """
        target = model_name(name, self._bucket, version)
        return (yield from self._point(target.parent, int(version), alias, etag))

    @operation
    def aliases(self, name: str) -> Plan[builtins.list[pb.Alias]]:
        """Returns the aliases of a model with their etags."""
        request = pb.ListAliasesRequest(parent=model_name(name, self._bucket).parent)
        return (yield from pages(request, pb.ListAliasesResponse, lambda page: page.aliases))

    @operation
    def drop_alias(self, name: str, alias: str, *, etag: str = "") -> Plan[None]:
        """Deletes an alias; the version stays. Raises Conflict if the alias has another `etag`,
        AliasNotFound.
        """
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
                # An empty etag asks that the alias does not exist yet.
                etag = ""
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
