"""Looks up, lists and changes buckets, models, versions and aliases by resource name: parses names,
cuts pages, follows aliases.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from services.chassis import context
from services.repository.catalogue import filters
from services.repository.catalogue.aliases import Aliases
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.documents import alias_name, model_name, version_name
from services.repository.catalogue.models import Models
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import names, paging
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.names import ModelName
from stellwerk.wire.permissions import permits

R = TypeVar("R", bound=Message)
DEFAULT_ALIAS = "default"
MAX_BUCKET_DESCRIPTION = 1024


def cut(
    listing: str, found: Sequence[R], size: int, position: Callable[[R], str]
) -> tuple[Sequence[R], str]:
    """Returns one page of `size` out of `found`, which holds up to `size` + 1 resources, and the
    next page's token, "" for the last page. `position` says where a page ends.
    """
    if len(found) <= size:
        return found, ""
    return found[:size], paging.encode(listing, position(found[size - 1]))


def _last_id(resource: pb.Bucket | pb.Model | pb.ModelVersion | pb.Alias) -> str:
    return resource.name.rpartition("/")[2]


class Catalogue:
    """The resources of the repository by name, for the caller of the current RPC.

    Every method raises InvalidInput for a malformed name, and what Buckets, Models and Aliases
    raise. `remove_file` removes an artifact's bytes; what it leaves after a crash is swept later.
    """

    def __init__(
        self,
        buckets: Buckets,
        models: Models,
        aliases: Aliases,
        remove_file: Callable[[str], Awaitable[None]],
    ) -> None:
        self._buckets = buckets
        self._models = models
        self._aliases = aliases
        self._remove_file = remove_file

    async def create_bucket(self, given: pb.Bucket) -> pb.Bucket:
        """Creates a bucket and returns it."""
        bucket = names.parse_bucket(given.name)
        if len(given.description) > MAX_BUCKET_DESCRIPTION or "\0" in given.description:
            raise InvalidInput(
                f"description may have {MAX_BUCKET_DESCRIPTION} characters and no NUL",
                field="bucket.description",
            )
        return await self._buckets.create(bucket, given.description, context.caller().name)

    async def bucket(self, name: str) -> pb.Bucket:
        """Returns the bucket."""
        return await self._buckets.get(names.parse_bucket(name))

    async def buckets(self, page_size: int, page_token: str) -> tuple[Sequence[pb.Bucket], str]:
        """Returns a page of the buckets that the caller may read, and the next page's token."""
        size, listing = paging.page_size(page_size), "buckets"
        after = paging.decode(listing, page_token)
        found = await self._buckets.list(_readable_buckets(), after, size + 1)
        return cut(listing, found, size, _last_id)

    async def delete_bucket(self, name: str) -> None:
        """Deletes an empty bucket."""
        await self._buckets.delete(names.parse_bucket(name))

    async def model(self, name: str) -> pb.Model:
        """Returns the model."""
        return await self._models.model(model_name(name))

    async def models(
        self, parent: str, page_size: int, page_token: str, text: str
    ) -> tuple[Sequence[pb.Model], str]:
        """Returns a page of a bucket's models that meet the filter `text`, in order of their ids,
        and the next page's token.
        """
        bucket, terms = names.parse_bucket(parent), filters.parse(text)
        size, listing = paging.page_size(page_size), f"models\0{bucket}\0{text}"
        after = paging.decode(listing, page_token)
        if after:
            names.check_id(after, "page_token")
        await self._buckets.require(bucket)
        return cut(
            listing, await self._models.models(bucket, terms, after, size + 1), size, _last_id
        )

    async def delete_model(self, name: str) -> None:
        """Deletes a model with its versions, aliases and artifacts."""
        for file in await self._models.delete_model(model_name(name)):
            await self._remove_file(file)

    async def version(self, name: str) -> pb.ModelVersion:
        """Returns the version."""
        return await self._models.version(*version_name(name))

    async def resolve(self, name: str) -> pb.ModelVersion:
        """Returns the version that the name of a version, an alias or a model stands for now; a
        model stands for its alias "default", else for its newest version.
        """
        parsed = names.parse_model(name)
        model = ModelName(parsed.bucket, parsed.model)
        if parsed.version is not None:
            return await self._models.version(model, parsed.version)
        if parsed.alias is not None:
            return await self._models.version(
                model, (await self._aliases.get(model, parsed.alias)).version
            )
        found = await self._models.model(model)
        return await self._models.version(
            model, found.aliases.get(DEFAULT_ALIAS) or found.latest_version
        )

    async def versions(
        self, parent: str, page_size: int, page_token: str, text: str
    ) -> tuple[Sequence[pb.ModelVersion], str]:
        """Returns a page of a model's versions that meet the filter `text`, newest first, and the
        next page's token.
        """
        model, terms = model_name(parent), filters.parse(text)
        size, listing = paging.page_size(page_size), f"versions\0{model}\0{text}"
        position = paging.decode(listing, page_token)
        before = names.check_version(position) if position else None
        await self._models.document(model)
        return cut(
            listing, await self._models.versions(model, terms, before, size + 1), size, _last_id
        )

    async def delete_version(self, name: str) -> None:
        """Deletes a version that no alias points to, with its artifact."""
        await self._remove_file(await self._models.delete_version(*version_name(name)))

    async def alias(self, name: str) -> pb.Alias:
        """Returns the alias."""
        return await self._aliases.get(*alias_name(name))

    async def aliases(
        self, parent: str, page_size: int, page_token: str
    ) -> tuple[Sequence[pb.Alias], str]:
        """Returns a page of a model's aliases in order of their ids, and the next page's token."""
        model = model_name(parent)
        size, listing = paging.page_size(page_size), f"aliases\0{model}"
        after = paging.decode(listing, page_token)
        found = [alias for alias in await self._aliases.list(model) if _last_id(alias) > after]
        return cut(listing, found[: size + 1], size, _last_id)

    async def set_alias(self, given: pb.Alias) -> pb.Alias:
        """Points an alias at a version if the given etag is the alias's; returns the alias."""
        model, alias = alias_name(given.name)
        version = names.check_version(str(given.version))
        return await self._aliases.set(model, alias, version, given.etag, context.caller().name)

    async def delete_alias(self, name: str, etag: str) -> None:
        """Deletes an alias."""
        await self._aliases.delete(*alias_name(name), etag)


def _readable_buckets() -> Iterable[str] | None:
    """Returns the ids of the buckets that the caller may read, None for all."""
    grants = context.caller().grants
    if permits(grants, "buckets.read", ""):
        return None
    return {grant.bucket for grant in grants if permits([grant], "buckets.read", grant.bucket)}
