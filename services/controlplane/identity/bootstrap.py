"""The first administrator: made once, when nobody administers the platform yet, with one API key in
a file.

The file is whole before the database knows the key, so a crash in between loses nothing: the next
start takes up the key that is in the file. The secret is written nowhere else, least of all to a
log.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from services.controlplane.identity import keys
from services.controlplane.identity.principals import ADMIN, ApiKey, Principal
from services.controlplane.identity.register import key_for
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.wire.errors import AlreadyExists, PrincipalNotFound

ADMIN_ID = "admin"
_DISPLAY_NAME = "made at start"
NO_FILE = (
    "nobody administers the platform yet, and STELLWERK_ADMIN_KEY_FILE does not say where to put"
    " the first key"
)
NOT_WRITTEN = "the first administrator's key cannot be written to STELLWERK_ADMIN_KEY_FILE"


class FileProblem(Exception):
    """The key's file is not given or cannot be used; the sentence says which."""


class Administrators(Protocol):
    """The part of the store that is needed here."""

    async def fit(self) -> None: ...
    async def administered(self) -> bool: ...
    async def get(self, principal_id: str) -> Principal: ...
    async def create(self, principal: Principal, key: ApiKey | None = None) -> None: ...
    async def replace(self, before: Principal, after: Principal) -> None: ...
    async def find_key(self, key_id: str) -> ApiKey | None: ...
    async def add_key(self, key: ApiKey) -> None: ...


class Ledger(Protocol):
    async def append(self, records: Sequence[audit.AuditRecord]) -> None: ...


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Makes sure that somebody administers the platform. `renew` makes a new key all the same, for
    when it was lost.
    """

    store: Administrators
    ledger: Ledger
    path: Path | None
    renew: bool
    clock: Callable[[], float]

    async def run(self) -> bool:
        """True if an administrator's key was made or taken up. Raises FileProblem, or NotReady for
        an unfit store.
        """
        await self.store.fit()
        if await self.store.administered() and not self.renew:
            return False
        if self.path is None:
            raise FileProblem(NO_FILE)
        key_id, secret = await self._take_up(self.path)
        await self.ledger.append([_record(audit.AuditRecord.KIND_INTENT, "")])
        await self._enthrone(key_id, secret)
        await self.ledger.append([_record(audit.AuditRecord.KIND_OUTCOME, "OK")])
        return True

    async def _take_up(self, path: Path) -> tuple[str, str]:
        """The key that is in the file, if it was never used; else a new one, which is in the file
        from then on.
        """
        secret = await asyncio.to_thread(read_key, path)
        presented = keys.parse_api_key(secret)
        if secret and presented is None:
            raise FileProblem(f"{NOT_WRITTEN}: the file holds something else")
        if presented is not None and await self.store.find_key(presented.id) is None:
            return presented.id, secret
        key_id, secret = keys.new_api_key()
        await asyncio.to_thread(write_key, path, secret)
        return key_id, secret

    async def _enthrone(self, key_id: str, secret: str) -> None:
        now = self.clock()
        try:
            before = await self.store.get(ADMIN_ID)
        except PrincipalNotFound:
            principal = Principal(
                ADMIN_ID,
                uuid.uuid4().hex,
                "Administrator",
                (ADMIN,),
                False,
                now,
                etag=uuid.uuid4().hex,
            )
            try:
                await self.store.create(
                    principal, key_for(principal, key_id, secret, _DISPLAY_NAME, now)
                )
                return
            except AlreadyExists:
                # Another control plane was first; its administrator gets our key as well.
                before = await self.store.get(ADMIN_ID)
        if not before.administers:
            roles = (*(role for role in before.roles if role != ADMIN), ADMIN)
            after = replace(
                before,
                disabled=False,
                roles=roles,
                etag=uuid.uuid4().hex,
                tokens_valid_from=int(now) + 1,
            )
            await self.store.replace(before, after)
        await self.store.add_key(key_for(before, key_id, secret, _DISPLAY_NAME, now))


def _record(kind: audit.AuditRecord.Kind, outcome: str) -> audit.AuditRecord:
    return audit.AuditRecord(
        kind=kind,
        principal="services/controlplane",
        method="bootstrap",
        resource=f"principals/{ADMIN_ID}",
        service="controlplane",
        outcome=outcome,
    )


def read_key(path: Path) -> str:
    """What the file holds, "" if there is none. Raises FileProblem if it cannot be read."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise FileProblem(f"{NOT_WRITTEN}: it is there but cannot be read") from exc


def write_key(path: Path, secret: str) -> None:
    """Writes the secret for its owner's eyes only (mode 0600), whole or not at all. Raises
    FileProblem.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise FileProblem(f"{NOT_WRITTEN}: {exc.strerror}") from exc
