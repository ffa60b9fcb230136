"""Aliases: movable names for versions, moved by compare-and-set; they live inside their model's
document.
"""

from __future__ import annotations

import secrets

from services.chassis.mongo import Document
from services.repository.catalogue import documents
from services.repository.catalogue.documents import model_key
from services.repository.catalogue.store import Store
from services.repository.mongo import Changes, Database, Session, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import topology
from stellwerk.wire.errors import AliasNotFound, Conflict, Overloaded
from stellwerk.wire.names import ModelName

MAX_ALIASES = 100
ANY_ETAG = "*"


class Aliases:
    """The aliases of models."""

    def __init__(self, database: Database, changes: Changes, store: Store) -> None:
        self._db, self._changes, self._store = database, changes, store

    async def get(self, name: ModelName, alias: str) -> pb.Alias:
        """The alias. Raises ModelNotFound, AliasNotFound."""
        kept = (await self._store.record(name))["aliases"].get(alias)
        if kept is None:
            raise _no_alias(name, alias)
        return documents.to_alias(name, alias, kept)

    async def list(self, name: ModelName) -> list[pb.Alias]:
        """The aliases of a model by name. Raises ModelNotFound."""
        model = await self._store.record(name)
        return [
            documents.to_alias(name, alias, kept)
            for alias, kept in sorted(model["aliases"].items())
        ]

    async def set(
        self, name: ModelName, alias: str, version: int, etag: str, updater: str
    ) -> pb.Alias:
        """Points an alias at a version if its etag is the given one ("" for none, "*" for any).

        Raises ModelNotFound, VersionNotFound, Conflict; Overloaded when the model has too many
        aliases.
        """
        key, moment = model_key(name), now()

        async def work(session: Session) -> pb.Alias:
            model = await self._store.record(name, session)
            await self._store.require_version(name, version, session)
            before = model["aliases"].get(alias)
            _check_etag(alias, before, etag)
            if before is None and len(model["aliases"]) >= MAX_ALIASES:
                raise Overloaded(
                    f"a model may have {MAX_ALIASES} aliases; delete one first", limit=MAX_ALIASES
                )
            kept = {
                "version": version,
                "etag": secrets.token_hex(8),
                "updated": moment,
                "updater": updater,
            }
            await self._db.models.update_one(
                {"_id": key},
                {"$set": {f"aliases.{alias}": kept, "updated": moment}},
                session=session,
            )
            previous = before["version"] if before else 0
            resource = f"{name.parent}/aliases/{alias}"
            await self._changes.note(
                session, topology.ALIAS_CHANGED, resource, version=version, previous=previous
            )
            return documents.to_alias(name, alias, kept)

        return await self._changes.make(work)

    async def delete(self, name: ModelName, alias: str, etag: str) -> None:
        """Removes an alias, whatever its etag or only with the given one. Raises AliasNotFound,
        Conflict.
        """
        key = model_key(name)

        async def work(session: Session) -> None:
            before = (await self._store.record(name, session))["aliases"].get(alias)
            if before is None:
                raise _no_alias(name, alias)
            _check_etag(alias, before, etag or ANY_ETAG)
            change = {"$unset": {f"aliases.{alias}": ""}, "$set": {"updated": now()}}
            await self._db.models.update_one({"_id": key}, change, session=session)
            resource = f"{name.parent}/aliases/{alias}"
            await self._changes.note(
                session, topology.ALIAS_CHANGED, resource, version=0, previous=before["version"]
            )

        await self._changes.make(work)


def _check_etag(alias: str, kept: Document | None, etag: str) -> None:
    """Raises Conflict unless the alias is what the caller believes it to be."""
    if etag == ANY_ETAG or etag == (kept["etag"] if kept else ""):
        return
    if not etag:
        raise Conflict(
            f"alias '{alias}' exists already; read it and send its etag to move it", alias=alias
        )
    if kept is None:
        raise Conflict(f"alias '{alias}' is gone; send an empty etag to set it anew", alias=alias)
    raise Conflict(
        f"alias '{alias}' was moved meanwhile; read it again and decide anew", alias=alias
    )


def _no_alias(name: ModelName, alias: str) -> AliasNotFound:
    return AliasNotFound(
        f"model '{name.model}' has no alias '{alias}'", model=name.model, alias=alias
    )
