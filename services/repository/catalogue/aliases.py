"""Stores aliases, movable names for versions, inside their model's document; an alias is moved by
compare-and-set on its etag.
"""

from __future__ import annotations

import secrets

from services.chassis.mongo import Document
from services.repository.catalogue import documents
from services.repository.catalogue.documents import model_key
from services.repository.catalogue.models import Models
from services.repository.events.outbox import Outbox
from services.repository.mongo import Database, Session, now
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import topology
from stellwerk.wire.errors import AliasNotFound, Conflict, Overloaded
from stellwerk.wire.names import ModelName

# Aliases of one model: they all stand in one document, which every read of the model fetches.
MAX_ALIASES = 100
ANY_ETAG = "*"


class Aliases:
    """Reads, moves and deletes the aliases of models in MongoDB."""

    def __init__(self, database: Database, outbox: Outbox, models: Models) -> None:
        self._db = database
        self._outbox = outbox
        self._models = models

    async def get(self, name: ModelName, alias: str) -> pb.Alias:
        """Returns the alias. Raises ModelNotFound, AliasNotFound."""
        kept = (await self._models.document(name))["aliases"].get(alias)
        if kept is None:
            raise _alias_not_found(name, alias)
        return documents.to_alias(name, alias, kept)

    async def list(self, name: ModelName) -> list[pb.Alias]:
        """Returns all aliases of a model in order of their ids. Raises ModelNotFound."""
        model = await self._models.document(name)
        return [
            documents.to_alias(name, alias, kept)
            for alias, kept in sorted(model["aliases"].items())
        ]

    async def set(
        self, name: ModelName, alias: str, version: int, etag: str, updater: str
    ) -> pb.Alias:
        """Points an alias at a version and returns the alias with its new etag.

        `etag` is the etag the alias must have now: "" for an alias that does not exist yet, "*" for
        any. Raises ModelNotFound, VersionNotFound, Conflict for another etag, and Overloaded for a
        model with MAX_ALIASES aliases.
        """
        key, moment = model_key(name), now()

        async def change(session: Session) -> pb.Alias:
            model = await self._models.document(name, session)
            await self._models.version_document(name, version, session)
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
            await self._outbox.add(
                session, topology.ALIAS_CHANGED, resource, version=version, previous=previous
            )
            return documents.to_alias(name, alias, kept)

        return await self._outbox.commit(change)

    async def delete(self, name: ModelName, alias: str, etag: str) -> None:
        """Deletes an alias; `etag` "" stands for any etag. Raises ModelNotFound, AliasNotFound,
        and Conflict for another etag.
        """
        key = model_key(name)

        async def change(session: Session) -> None:
            before = (await self._models.document(name, session))["aliases"].get(alias)
            if before is None:
                raise _alias_not_found(name, alias)
            _check_etag(alias, before, etag or ANY_ETAG)
            update = {"$unset": {f"aliases.{alias}": ""}, "$set": {"updated": now()}}
            await self._db.models.update_one({"_id": key}, update, session=session)
            resource = f"{name.parent}/aliases/{alias}"
            await self._outbox.add(
                session, topology.ALIAS_CHANGED, resource, version=0, previous=before["version"]
            )

        await self._outbox.commit(change)


def _check_etag(alias: str, kept: Document | None, etag: str) -> None:
    """Raises Conflict unless `etag` is the alias's etag ("" for no alias) or "*"."""
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


def _alias_not_found(name: ModelName, alias: str) -> AliasNotFound:
    return AliasNotFound(
        f"model '{name.model}' has no alias '{alias}'", model=name.model, alias=alias
    )
