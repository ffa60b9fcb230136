"""Compares what the servers made of a stream: a difference has a rule, or is a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.api_gateway.http.heads import KnownHeads
from services.api_gateway.http.parsing import Malformed, RequestParser
from soak.http_streams import rules
from soak.http_streams.outcomes import Outcome, Seen
from soak.http_streams.servers import MAX_HEAD_BYTES
from soak.http_streams.streams import Stream


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two servers: the rule that allows it, "" for none, and what it is."""

    rule: str
    text: str


class _Deaf:
    """A listener that only lets the parser go on."""

    def on_head(self, *_: object) -> None:
        return

    def on_part(self, _: bytes) -> None:
        return

    def on_end(self) -> None:
        return


def reason_of(data: bytes) -> str:
    """Returns why the gateway's parser refuses these bytes, in its words; "" if it does not."""
    parser = RequestParser(_Deaf(), KnownHeads(), MAX_HEAD_BYTES)
    try:
        parser.feed(data)
    except Malformed as exc:
        cause = exc.__context__
        inner = cause.__context__ if cause is not None else None
        if isinstance(inner, Malformed) or cause is None:
            return (inner if isinstance(inner, Malformed) else exc).text.decode()
        return str(inner or cause) or type(inner).__name__
    return ""


def end_of(outcome: Outcome) -> str:
    """Returns how a connection ended: open, closed behind a response, or refused by the parser."""
    if not outcome.closed:
        return "open"
    if outcome.reason or outcome.statuses.count(400) > sum(1 for s in outcome.seen if s.refused):
        return "refused"
    return "closed"


def with_itself(name: str, first: Outcome, second: Outcome) -> Iterator[Difference]:
    """Yields the differences between two runs of the gateway's server on the same bytes."""
    if first.hangs or second.hangs:
        yield Difference("", f"{name}: {first.hangs or second.hangs}")
    # The body of a request that waits may be broken where the client sent it unasked.
    seen = [each.seen[: len(each.seen) - each.waits] for each in (first, second)]
    if len(seen[0]) != len(seen[1]) or not all(map(Seen.same, *seen)):
        yield Difference("", f"{name}: other requests: {first.seen} {second.seen}")
    if (first.statuses, first.closed) != (second.statuses, second.closed):
        yield Difference(
            "", f"{name}: {first.statuses} {first.closed}, {second.statuses} {second.closed}"
        )
    answered = len(first.statuses) - (end_of(first) == "refused")
    if answered != len(first.seen):
        yield Difference("", f"{name}: {len(first.seen)} requests, {answered} answers")


def with_other(stream: Stream, own: Outcome, other: Outcome, name: str) -> Iterator[Difference]:
    """Yields the differences between the gateway's server and another one, request by request."""
    for at, (ours, theirs) in enumerate(zip(own.seen, other.seen, strict=False)):
        if name == "uvicorn" and at and rules.upgrades(own.seen[at - 1]):
            # It has given up on what follows in the same read.
            yield Difference(rules.UPGRADE, f"request {at}")
            return
        if ours.refused:
            rule = rules.refused_by_door(ours, theirs)
            yield Difference(rule, f"request {at}: refused ({ours.refused}), {name} saw {theirs}")
        elif not ours.same(theirs):
            rule = rules.seen_differently(ours, theirs, name)
            yield Difference(rule, f"request {at}: {ours}, {name} saw {theirs}")
            if not rule or rule == rules.UPGRADE:
                # Nothing behind it can be compared.
                return
    common = min(len(own.seen), len(other.seen))
    ends = (end_of(own), end_of(other))
    if len(own.seen) == len(other.seen) and ends[0] == ends[1]:
        return
    reason = reason_of(stream.data) if ends[0] == "refused" else ""
    rule = rules.ended_differently(own, other, common, ends, reason, name)
    yield Difference(
        rule,
        f"after {common} requests: ours {ends[0]} ({reason}) with {len(own.seen)} requests and"
        f" {own.statuses}; {name} {ends[1]} ({other.reason}) with {len(other.seen)} and"
        f" {other.statuses}",
    )
