"""Serves stellwerk.repository.v1.RepositoryService: turns each request message into one call of the
catalogue, the uploads or the downloads, and its result into the response message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from services.repository.artifacts.downloads import Downloads
from services.repository.artifacts.incoming import open_stream
from services.repository.artifacts.uploads import Uploads
from services.repository.catalogue.catalogue import Catalogue
from services.repository.catalogue.documents import model_name, time, version_name
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.repository.v1 import repository_service_pb2_grpc

CONTENT_TYPE = "application/octet-stream"


class RepositoryServicer(repository_service_pb2_grpc.RepositoryServiceServicer):
    """The RPCs of the repository; see the protobuf service for what each does."""

    def __init__(self, catalogue: Catalogue, uploads: Uploads, downloads: Downloads) -> None:
        self._catalogue = catalogue
        self._uploads = uploads
        self._downloads = downloads

    async def CreateBucket(
        self, request: pb.CreateBucketRequest, context: Any
    ) -> pb.CreateBucketResponse:
        return pb.CreateBucketResponse(bucket=await self._catalogue.create_bucket(request.bucket))

    async def GetBucket(self, request: pb.GetBucketRequest, context: Any) -> pb.GetBucketResponse:
        return pb.GetBucketResponse(bucket=await self._catalogue.bucket(request.name))

    async def ListBuckets(
        self, request: pb.ListBucketsRequest, context: Any
    ) -> pb.ListBucketsResponse:
        buckets, token = await self._catalogue.buckets(request.page_size, request.page_token)
        return pb.ListBucketsResponse(buckets=buckets, next_page_token=token)

    async def DeleteBucket(
        self, request: pb.DeleteBucketRequest, context: Any
    ) -> pb.DeleteBucketResponse:
        await self._catalogue.delete_bucket(request.name)
        return pb.DeleteBucketResponse()

    async def CreateUpload(
        self, request: pb.CreateUploadRequest, context: Any
    ) -> pb.CreateUploadResponse:
        name, expires = await self._uploads.open(model_name(request.parent), request.model_version)
        return pb.CreateUploadResponse(name=name, expire_time=time(expires))

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: Any
    ) -> pb.UploadArtifactResponse:
        upload, pieces = await open_stream(request_iterator, context)
        return pb.UploadArtifactResponse(model_version=await self._uploads.receive(upload, pieces))

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        content_type = CONTENT_TYPE
        async with aclosing(self._downloads.send(*version_name(request.name))) as pieces:
            async for piece in pieces:
                message = pb.DownloadArtifactResponse()
                # Assigned in place: passing a finished HttpBody to the constructor copies it.
                message.artifact.data = piece
                # Only the first message names the content type, as google.api.HttpBody wants it.
                message.artifact.content_type = content_type
                content_type = ""
                yield message

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=await self._catalogue.model(request.name))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        models, token = await self._catalogue.models(
            request.parent, request.page_size, request.page_token, request.filter
        )
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def DeleteModel(
        self, request: pb.DeleteModelRequest, context: Any
    ) -> pb.DeleteModelResponse:
        await self._catalogue.delete_model(request.name)
        return pb.DeleteModelResponse()

    async def GetModelVersion(
        self, request: pb.GetModelVersionRequest, context: Any
    ) -> pb.GetModelVersionResponse:
        return pb.GetModelVersionResponse(model_version=await self._catalogue.version(request.name))

    async def ResolveModelVersion(
        self, request: pb.ResolveModelVersionRequest, context: Any
    ) -> pb.ResolveModelVersionResponse:
        return pb.ResolveModelVersionResponse(
            model_version=await self._catalogue.resolve(request.name)
        )

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Any
    ) -> pb.ListModelVersionsResponse:
        versions, token = await self._catalogue.versions(
            request.parent, request.page_size, request.page_token, request.filter
        )
        return pb.ListModelVersionsResponse(model_versions=versions, next_page_token=token)

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, context: Any
    ) -> pb.DeleteModelVersionResponse:
        await self._catalogue.delete_version(request.name)
        return pb.DeleteModelVersionResponse()

    async def GetAlias(self, request: pb.GetAliasRequest, context: Any) -> pb.GetAliasResponse:
        return pb.GetAliasResponse(alias=await self._catalogue.alias(request.name))

    async def ListAliases(
        self, request: pb.ListAliasesRequest, context: Any
    ) -> pb.ListAliasesResponse:
        aliases, token = await self._catalogue.aliases(
            request.parent, request.page_size, request.page_token
        )
        return pb.ListAliasesResponse(aliases=aliases, next_page_token=token)

    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.SetAliasResponse:
        return pb.SetAliasResponse(alias=await self._catalogue.set_alias(request.alias))

    async def DeleteAlias(
        self, request: pb.DeleteAliasRequest, context: Any
    ) -> pb.DeleteAliasResponse:
        await self._catalogue.delete_alias(request.name, request.etag)
        return pb.DeleteAliasResponse()
