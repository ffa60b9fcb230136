"""Creates the first administrator, when nobody administers the platform yet, and writes its API key
to a file.

The file is complete before the database knows the key: a start that follows a crash in between
uses the key in the file. The key is written nowhere else, in particular to no log.
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
NO_KEY_FILE = (
    "nobody administers the platform yet, and STELLWERK_ADMIN_KEY_FILE does not say where to put"
    " the first key"
)
NOT_WRITTEN = "the first administrator's key cannot be written to STELLWERK_ADMIN_KEY_FILE"


class KeyFileError(Exception):
    """Raised when the key's file is not named or cannot be used; the message says which."""


class AdministratorStore(Protocol):
    """The part of the identity store that the bootstrap needs; see IdentityStore."""

    async def check_transactions(self) -> None: ...
    async def administered(self) -> bool: ...
    async def get(self, principal_id: str) -> Principal: ...
    async def create(self, principal: Principal, key: ApiKey | None = None) -> None: ...
    async def update(
        self, principal_id: str, change: Callable[[Principal], Principal]
    ) -> Principal: ...
    async def find_key(self, key_id: str) -> ApiKey | None: ...
    async def add_key(self, key: ApiKey) -> None: ...


class Ledger(Protocol):
    """The part of the audit ledger that the bootstrap needs."""

    async def append(self, records: Sequence[audit.AuditRecord]) -> None: ...


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Makes sure that an enabled principal is an administrator, with an API key in the file `path`.

    `renew` creates a new key even if there is an administrator, for a key that was lost.
    """

    store: AdministratorStore
    ledger: Ledger
    path: Path | None
    renew: bool
    clock: Callable[[], float]

    async def run(self) -> bool:
        """Returns True if it stored an administrator's key, False if nothing was to do.

        Raises KeyFileError, NotReady for a MongoDB without transactions, and Unavailable.
        """
        await self.store.check_transactions()
        if await self.store.administered() and not self.renew:
            return False
        if self.path is None:
            raise KeyFileError(NO_KEY_FILE)
        key_id, secret = await self._key_in_file(self.path)
        await self.ledger.append([_record(audit.AuditRecord.KIND_INTENT, "")])
        await self._make_administrator(key_id, secret)
        await self.ledger.append([_record(audit.AuditRecord.KIND_OUTCOME, "OK")])
        return True

    async def _key_in_file(self, path: Path) -> tuple[str, str]:
        """Returns id and text of the key in the file if the database does not know it; else of a
        new key, written to the file.
        """
        secret = await asyncio.to_thread(read_key, path)
        parsed = keys.parse_api_key(secret)
        if secret and parsed is None:
            raise KeyFileError(f"{NOT_WRITTEN}: the file holds something else")
        if parsed is not None and await self.store.find_key(parsed.id) is None:
            return parsed.id, secret
        key_id, secret = keys.new_api_key()
        await asyncio.to_thread(write_key, path, secret)
        return key_id, secret

    async def _make_administrator(self, key_id: str, secret: str) -> None:
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
                # Another control plane created it meanwhile; it gets this key in addition.
                before = await self.store.get(ADMIN_ID)
        if not before.administers:
            await self.store.update(ADMIN_ID, lambda admin: _promoted(admin, now))
        await self.store.add_key(key_for(before, key_id, secret, _DISPLAY_NAME, now))


def _promoted(principal: Principal, now: float) -> Principal:
    """Returns the principal as an enabled administrator."""
    return replace(
        principal,
        disabled=False,
        roles=(*(role for role in principal.roles if role != ADMIN), ADMIN),
        etag=uuid.uuid4().hex,
        tokens_valid_from=int(now) + 1,
    )


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
    """Returns the content of the key's file, "" if there is no file. Raises KeyFileError if the
    file cannot be read.
    """
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise KeyFileError(f"{NOT_WRITTEN}: it is there but cannot be read") from exc


def write_key(path: Path, secret: str) -> None:
    """Writes the key to the file with mode 0600, whole or not at all. Raises KeyFileError."""
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
        raise KeyFileError(f"{NOT_WRITTEN}: {exc.strerror}") from exc
