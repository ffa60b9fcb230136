"""Chains the audit ledger's entries by hashes, and verifies such a chain. Pure.

An entry's hash covers all its fields and the hash before it. An entry that is edited, removed,
added or moved shows at the first number that does not fit. Entries cut off the end show against an
anchor kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# The hash that the first entry follows.
GENESIS = "0" * 64
# The first of the hashed fields. A change of `canonical` needs another value.
_FORMAT = "stellwerk-audit-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record with its number and hash. `time_ms` is the Unix time in milliseconds, by the
    control plane's clock.
    """

    sequence: int
    time_ms: int
    kind: int
    principal: str
    method: str
    resource: str
    request_id: str
    service: str
    outcome: str
    count: int
    peer: str
    previous_hash: str = GENESIS
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the last entry's number and hash."""

    sequence: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification. `first_bad_sequence` is 0 for an intact chain."""

    intact: bool
    checked: int
    first_bad_sequence: int
    problem: str
    last: Head


def canonical(entry: Entry) -> bytes:
    """Returns the bytes that are hashed: a JSON array in a fixed order, ASCII, without spaces."""
    fields = [
        _FORMAT,
        entry.sequence,
        entry.time_ms,
        entry.kind,
        entry.principal,
        entry.method,
        entry.resource,
        entry.request_id,
        entry.service,
        entry.outcome,
        entry.count,
        entry.peer,
        entry.previous_hash,
    ]
    # A tampered entry may hold values of any type; its bytes must only differ from the original's.
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":"), default=repr).encode()


def hash_of(entry: Entry) -> str:
    """Returns the SHA-256 of the canonical bytes in hex."""
    return hashlib.sha256(canonical(entry)).hexdigest()


def extend(head: Head, entries: Iterable[Entry]) -> list[Entry]:
    """Returns the entries numbered and chained after `head`."""
    chained: list[Entry] = []
    for entry in entries:
        placed = replace(entry, sequence=head.sequence + 1, previous_hash=head.hash, hash="")
        placed = replace(placed, hash=hash_of(placed))
        head = Head(placed.sequence, placed.hash)
        chained.append(placed)
    return chained


class ChainVerifier:
    """Verifies a chain fed from its first entry on, up to the first entry that does not fit.

    `anchors` are heads that the chain must contain: the stored head, and one kept elsewhere.
    """

    def __init__(self, anchors: Sequence[Head] = ()) -> None:
        self._anchors = [anchor for anchor in anchors if anchor.sequence > 0]
        self._head = Head()
        self._checked = 0
        self._bad: tuple[int, str] | None = None

    def feed(self, entries: Iterable[Entry]) -> bool:
        """Checks the next entries; returns False once one did not fit and feeding on is useless."""
        for entry in entries:
            if self._bad is not None:
                return False
            self._checked += 1
            problem = self._problem(entry)
            if problem:
                self._bad = (self._head.sequence + 1, problem)
            else:
                self._head = Head(entry.sequence, entry.hash)
        return self._bad is None

    def _problem(self, entry: Entry) -> str:
        expected = self._head.sequence + 1
        if entry.sequence != expected:
            return f"record {expected} is missing: the next one found is {entry.sequence}"
        if entry.previous_hash != self._head.hash:
            return f"record {expected} does not follow from the record before it"
        if entry.hash != hash_of(entry):
            return f"record {expected} was changed: its hash is not that of its content"
        if any(
            anchor.sequence == expected and anchor.hash != entry.hash for anchor in self._anchors
        ):
            return (
                f"record {expected} is not the one that was there before: the ledger was written"
                " anew"
            )
        return ""

    def finish(self) -> Verification:
        """Returns the result, after the last entry was fed."""
        last = self._head.sequence
        furthest = max((anchor.sequence for anchor in self._anchors), default=0)
        if self._bad is None and furthest > last:
            self._bad = (
                last + 1,
                f"record {last + 1} is missing: the ledger held {furthest} records",
            )
        bad, problem = self._bad or (0, "")
        return Verification(self._bad is None, self._checked, bad, problem, self._head)


def verify(entries: Iterable[Entry], anchors: Sequence[Head] = ()) -> Verification:
    """Verifies a whole chain."""
    check = ChainVerifier(anchors)
    check.feed(entries)
    return check.finish()
