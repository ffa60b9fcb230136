"""A resource: a part of the platform, bound to the session that carries out its operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from stellwerk.client.session.plan import Plan, call
from stellwerk.client.session.session import AsyncSession, SyncSession

S = TypeVar("S", bound=SyncSession | AsyncSession)
R = TypeVar("R", bound=Message)
# Entries of one page of a listing, the most that the platform gives at once.
PAGE_SIZE = 1000


class Resource(Generic[S]):
    """A part of the platform. Its operations are written once: those of a `Resource[SyncSession]`
    block, those of a `Resource[AsyncSession]` are awaited.
    """

    def __init__(self, session: S) -> None:
        self.session: S = session

    @property
    def _bucket(self) -> str:
        return self.session.state.bucket


def pages(
    request: Any, response: type[R], items: Callable[[R], Any], limit: int | None = None
) -> Plan[list[Any]]:
    """Returns all items of a paged listing (AIP-158), or the first `limit` of them."""
    found: list[Any] = []
    token = ""
    while True:
        page = type(request)()
        page.CopyFrom(request)
        page.page_size = min(PAGE_SIZE, limit - len(found)) if limit else PAGE_SIZE
        page.page_token = token
        answer: Any = yield from call(page, response)
        found += items(answer)
        token = answer.next_page_token
        if not token or (limit and len(found) >= limit):
            return found
