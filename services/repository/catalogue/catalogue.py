"""What callers look up and move by name: names parsed, pages cut, aliases followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from services.chassis import context
from services.repository.catalogue import filters
from services.repository.catalogue.aliases import Aliases
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.store import Store
from services.repository.mongo import Artifacts
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import names, paging
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.names import ModelName
from stellwerk.wire.permissions import permits

R = TypeVar("R", bound=Message)
DEFAULT_ALIAS = "default"
MAX_BUCKET_DESCRIPTION = 1024


def model_name(name: str) -> ModelName:
    """A model's name. Raises InvalidInput for the name of one of its versions or aliases."""
    parsed = names.parse_model(name)
    if parsed.version is not None or parsed.alias is not None:
        raise InvalidInput("a model is named buckets/{bucket}/models/{model}", field="name")
    return parsed


def version_name(name: str) -> tuple[ModelName, int]:
    """A version's name as its model and number. Raises InvalidInput."""
    parsed = names.parse_model(name)
    if parsed.version is None:
        raise InvalidInput(
            "a version is named buckets/{bucket}/models/{model}/versions/{version}", field="name"
        )
    return ModelName(parsed.bucket, parsed.model), parsed.version


def alias_name(name: str) -> tuple[ModelName, str]:
    """An alias's name as its model and alias. Raises InvalidInput."""
    parsed = names.parse_model(name)
    if parsed.alias is None:
        raise InvalidInput(
            "an alias is named buckets/{bucket}/models/{model}/aliases/{alias}", field="name"
        )
    return ModelName(parsed.bucket, parsed.model), parsed.alias


def cut(
    listing: str, found: Sequence[R], size: int, position: Callable[[R], str]
) -> tuple[Sequence[R], str]:
    """One page of `size` out of up to `size` + 1 found, and the token of the next."""
    if len(found) <= size:
        return found, ""
    return found[:size], paging.encode(listing, position(found[size - 1]))


def _last_id(resource: pb.Bucket | pb.Model | pb.ModelVersion | pb.Alias) -> str:
    return resource.name.rpartition("/")[2]


class Catalogue:
    """Buckets, models, versions and aliases by name."""

    def __init__(
        self, buckets: Buckets, store: Store, aliases: Aliases, artifacts: Artifacts
    ) -> None:
        self._buckets, self._store, self._aliases, self._artifacts = (
            buckets,
            store,
            aliases,
            artifacts,
        )

    async def create_bucket(self, given: pb.Bucket) -> pb.Bucket:
        """A new bucket."""
        bucket = names.parse_bucket(given.name)
        if len(given.description) > MAX_BUCKET_DESCRIPTION or "\0" in given.description:
            raise InvalidInput(
                f"description may have {MAX_BUCKET_DESCRIPTION} characters and no NUL",
                field="bucket.description",
            )
        return await self._buckets.create(bucket, given.description, context.caller().name)

    async def bucket(self, name: str) -> pb.Bucket:
        """The bucket."""
        return await self._buckets.get(names.parse_bucket(name))

    async def buckets(self, page_size: int, page_token: str) -> tuple[Sequence[pb.Bucket], str]:
        """The buckets that the caller may read."""
        size, listing = paging.page_size(page_size), "buckets"
        after = paging.decode(listing, page_token)
        found = await self._buckets.list(_readable_buckets(), after, size + 1)
        return cut(listing, found, size, _last_id)

    async def delete_bucket(self, name: str) -> None:
        """Removes an empty bucket."""
        await self._buckets.delete(names.parse_bucket(name))

    async def model(self, name: str) -> pb.Model:
        """The model."""
        return await self._store.model(model_name(name))

    async def models(
        self, parent: str, page_size: int, page_token: str, text: str
    ) -> tuple[Sequence[pb.Model], str]:
        """The models of a bucket that the filter lets through, by name."""
        bucket, terms = names.parse_bucket(parent), filters.parse(text)
        size, listing = paging.page_size(page_size), f"models\0{bucket}\0{text}"
        after = paging.decode(listing, page_token)
        if after:
            names.check_id(after, "page_token")
        await self._buckets.get(bucket)
        return cut(
            listing, await self._store.models(bucket, terms, after, size + 1), size, _last_id
        )

    async def delete_model(self, name: str) -> None:
        """Removes a model and everything of it."""
        for file in await self._store.delete_model(model_name(name)):
            await self._artifacts.remove(file)

    async def version(self, name: str) -> pb.ModelVersion:
        """The version."""
        return await self._store.version(*version_name(name))

    async def resolve(self, name: str) -> pb.ModelVersion:
        """The version that a version, an alias or a model means now."""
        parsed = names.parse_model(name)
        model = ModelName(parsed.bucket, parsed.model)
        if parsed.version is not None:
            return await self._store.version(model, parsed.version)
        if parsed.alias is not None:
            return await self._store.version(
                model, (await self._aliases.get(model, parsed.alias)).version
            )
        found = await self._store.model(model)
        return await self._store.version(
            model, found.aliases.get(DEFAULT_ALIAS) or found.latest_version
        )

    async def versions(
        self, parent: str, page_size: int, page_token: str, text: str
    ) -> tuple[Sequence[pb.ModelVersion], str]:
        """The versions of a model that the filter lets through, newest first."""
        model, terms = model_name(parent), filters.parse(text)
        size, listing = paging.page_size(page_size), f"versions\0{model}\0{text}"
        position = paging.decode(listing, page_token)
        before = names.check_version(position) if position else None
        await self._store.record(model)
        return cut(
            listing, await self._store.versions(model, terms, before, size + 1), size, _last_id
        )

    async def delete_version(self, name: str) -> None:
        """Removes a version that no alias points to."""
        await self._artifacts.remove(await self._store.delete_version(*version_name(name)))

    async def alias(self, name: str) -> pb.Alias:
        """The alias."""
        return await self._aliases.get(*alias_name(name))

    async def aliases(
        self, parent: str, page_size: int, page_token: str
    ) -> tuple[Sequence[pb.Alias], str]:
        """The aliases of a model by name."""
        model = model_name(parent)
        size, listing = paging.page_size(page_size), f"aliases\0{model}"
        after = paging.decode(listing, page_token)
        found = [alias for alias in await self._aliases.list(model) if _last_id(alias) > after]
        return cut(listing, found[: size + 1], size, _last_id)

    async def set_alias(self, given: pb.Alias) -> pb.Alias:
        """Moves an alias by compare-and-set."""
        model, alias = alias_name(given.name)
        version = names.check_version(str(given.version))
        return await self._aliases.set(model, alias, version, given.etag, context.caller().name)

    async def delete_alias(self, name: str, etag: str) -> None:
        """Removes an alias."""
        await self._aliases.delete(*alias_name(name), etag)


def _readable_buckets() -> Iterable[str] | None:
    """The buckets on which the caller's grants permit reading; None for all."""
    grants = context.caller().grants
    if permits(grants, "buckets.read", ""):
        return None
    return {grant.bucket for grant in grants if permits([grant], "buckets.read", grant.bucket)}
