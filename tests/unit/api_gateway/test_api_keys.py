"""API keys at the door: exchanged once, remembered until shortly before the token lapses."""

from __future__ import annotations

import asyncio

import pytest

from services.api_gateway.upstream.api_keys import ApiKeyExchange
from stellwerk.wire.errors import Unauthenticated, Unavailable

KEY = "swk_k1_" + "x" * 43


class Issuer:
    """Stands in for the control plane's IssueToken."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()

    async def issue(self, key: str) -> tuple[str, float]:
        self.asked += 1
        self.began.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return f"token-{self.asked}", 100.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_passes_as_it_is() -> None:
    issuer = Issuer()

    assert await ApiKeyExchange(issuer.issue, 10).token("eyJ.a.b") == "eyJ.a.b"
    assert issuer.asked == 0


async def test_a_key_is_exchanged_once_and_again_before_its_token_lapses() -> None:
    issuer, clock = Issuer(), Clock()
    keys = ApiKeyExchange(issuer.issue, 10, clock)

    assert await keys.token(KEY) == "token-1"
    clock.now += 79
    assert await keys.token(KEY) == "token-1"
    clock.now += 2
    assert await keys.token(KEY) == "token-2"


async def test_a_key_is_known_from_its_exchange_until_that_is_due_again() -> None:
    issuer, clock = Issuer(), Clock()
    keys = ApiKeyExchange(issuer.issue, 10, clock)
    before = keys.known(KEY.encode())
    await keys.token(KEY)

    moments = []
    for _ in range(2):
        moments.append(keys.known(KEY.encode()))
        clock.now += 80

    assert (before, moments) == (None, ["token-1", None])


async def test_a_refused_key_is_not_known() -> None:
    issuer = Issuer()
    issuer.error = Unauthenticated("no")
    keys = ApiKeyExchange(issuer.issue, 10)

    with pytest.raises(Unauthenticated):
        await keys.token(KEY)

    assert keys.known(KEY.encode()) is None


async def test_many_callers_at_once_cause_one_exchange_even_when_the_first_goes_away() -> None:
    issuer = Issuer()
    issuer.gate.clear()
    keys = ApiKeyExchange(issuer.issue, 10)
    callers = [asyncio.create_task(keys.token(KEY)) for _ in range(20)]
    await issuer.began.wait()

    callers[0].cancel()
    issuer.gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert set(answers[1:]) == {"token-1"}
    assert issuer.asked == 1


async def test_a_refused_key_is_remembered_for_a_moment() -> None:
    issuer, clock = Issuer(), Clock()
    issuer.error = Unauthenticated("no")
    keys = ApiKeyExchange(issuer.issue, 10, clock)

    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await keys.token(KEY)
    assert issuer.asked == 1

    clock.now += 4
    issuer.error = None
    assert await keys.token(KEY) == "token-2"


async def test_an_absent_control_plane_is_not_remembered() -> None:
    issuer = Issuer()
    issuer.error = Unavailable("away")
    keys = ApiKeyExchange(issuer.issue, 10)

    with pytest.raises(Unavailable):
        await keys.token(KEY)
    issuer.error = None
    assert await keys.token(KEY) == "token-2"


async def test_the_cache_is_bounded_and_holds_no_key() -> None:
    issuer = Issuer()
    keys = ApiKeyExchange(issuer.issue, 3)

    for number in range(10):
        await keys.token(f"{KEY}{number}")

    assert len(keys._outcomes) == 3
    assert KEY not in repr(keys._outcomes)


async def test_an_endless_key_is_sent_nowhere() -> None:
    issuer = Issuer()

    with pytest.raises(Unauthenticated):
        await ApiKeyExchange(issuer.issue, 3).token("swk_" + "x" * 5000)
    assert issuer.asked == 0
