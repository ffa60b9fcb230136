"""Which keys become tokens, and what everyone else is told to trust."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from services.chassis.access.token_verifier import TokenVerifier
from services.controlplane.config import MAX_LIFETIME_SECONDS
from services.controlplane.identity.keys import ServiceKeys, new_api_key, new_service_key
from services.controlplane.identity.principals import Principal, Revocations
from services.controlplane.identity.register import NewKey, make_key
from services.controlplane.identity.sealing import WrongRootKey
from services.controlplane.identity.signing_keys import SigningKey
from services.controlplane.identity.token_issuer import REFUSAL, TokenIssuer, TokenPolicy
from stellwerk.wire.errors import InvalidInput, Unauthenticated, Unavailable
from stellwerk.wire.permissions import Grant
from tests.fakes.credentials import FakeCredentials

ADA = Principal("ada", "u1", "Ada", (Grant("editor", "team-a"),), False, 1.0, "e1")


class _World:
    """A token issuer over a store in memory, and a verifier that trusts it."""

    def __init__(self, service_keys: Path | None = None) -> None:
        self.now = time.time()
        self.store = FakeCredentials()
        self.verifier = TokenVerifier(lambda: self.now)
        keys = ServiceKeys(service_keys, lambda: self.now)
        policy = TokenPolicy(lifetime_seconds=600, publish_seconds=12.0)
        self.tokens = TokenIssuer(
            self.store, self.store, keys, policy, lambda: self.now, self.verifier.trust
        )

    async def key(self, principal: Principal = ADA, expires_at: float | None = None) -> NewKey:
        self.store.principals.setdefault(principal.id, principal)
        made = make_key(principal, "", self.now, expires_at)
        await self.store.add_key(made.key)
        return made


@pytest.fixture
async def world() -> _World:
    world = _World()
    await world.tokens.refresh()
    return world


async def test_a_key_becomes_a_token_that_the_platform_takes(world: _World) -> None:
    made = await world.key()

    token = await world.tokens.exchange(made.secret)

    assert token.expires_in == 600
    principal = world.verifier.verify(token.text)
    assert (principal.name, principal.grants, principal.key_id) == (
        "principals/ada",
        ADA.roles,
        made.key.id,
    )
    assert principal.expires_at == pytest.approx(world.now + 600, abs=1)


async def test_every_key_that_is_not_good_is_refused_with_one_text(
    world: _World, tmp_path: Path
) -> None:
    good, gone, other = await world.key(), await world.key(), await world.key()
    lapsed = await world.key(expires_at=world.now)
    about_to_lapse = await world.key(expires_at=world.now + 0.5)
    disabled = await world.key(replace(ADA, id="bob", disabled=True))
    deleted = await world.key(replace(ADA, id="eve"))
    del world.store.principals["eve"]
    namesake = await world.key(replace(ADA, id="kim", uid="old"))
    world.store.principals["kim"] = replace(ADA, id="kim", uid="new")
    world.store.keys[gone.key.id] = replace(gone.key, revoked_at=world.now)
    bad = [
        "",
        "x",
        good.secret[:-1],
        good.secret + "a",
        f" {good.secret}",
        good.secret[:21] + other.secret[21:],
        new_api_key()[1],
        new_service_key("router"),
        "swk_" + "a" * 100_000,
        *(made.secret for made in [gone, lapsed, about_to_lapse, disabled, deleted, namesake]),
    ]

    for text in bad:
        with pytest.raises(Unauthenticated) as caught:
            await world.tokens.exchange(text)
        assert (caught.value.message, caught.value.metadata) == (REFUSAL, {})
    assert world.verifier.verify((await world.tokens.exchange(good.secret)).text)


async def test_a_token_never_outlives_its_key(world: _World) -> None:
    made = await world.key(expires_at=world.now + 100.9)

    token = await world.tokens.exchange(made.secret, 3600)

    assert token.expires_in == 100


@pytest.mark.parametrize("lifetime", [-1, MAX_LIFETIME_SECONDS + 1])
async def test_a_lifetime_out_of_bounds_is_refused(world: _World, lifetime: int) -> None:
    made = await world.key()

    with pytest.raises(InvalidInput, match="lifetime_seconds"):
        await world.tokens.exchange(made.secret, lifetime)
    assert (
        await world.tokens.exchange(made.secret, MAX_LIFETIME_SECONDS)
    ).expires_in == MAX_LIFETIME_SECONDS


async def test_a_services_key_becomes_a_token_of_that_service(tmp_path: Path) -> None:
    key = new_service_key("api_gateway")
    (tmp_path / "api_gateway.key").write_text(key)
    world = _World(tmp_path)
    await world.tokens.refresh()

    principal = world.verifier.verify((await world.tokens.exchange(key)).text)

    assert principal.name == "services/api_gateway" and principal.grants == (
        Grant("service.api_gateway"),
    )


async def test_the_control_plane_needs_no_key_for_its_own_token(world: _World) -> None:
    text, lifetime = await world.tokens.own()

    assert world.verifier.verify(text).name == "services/controlplane" and lifetime == 900


async def test_nothing_is_issued_or_trusted_before_the_keys_are_read() -> None:
    world = _World()
    made = await world.key()

    for attempt in (world.tokens.exchange(made.secret), world.tokens.own()):
        with pytest.raises(Unavailable, match="starting"):
            await attempt
    with pytest.raises(Unavailable, match="starting"):
        world.tokens.trust()


async def test_after_a_rotation_old_tokens_stay_good_and_the_new_key_signs_once_it_is_known(
    world: _World,
) -> None:
    made = await world.key()
    old = await world.tokens.exchange(made.secret, 3600)
    (first,) = [key.kid for key in world.tokens.trust().keys]

    kid = await world.tokens.rotate()

    assert {key.kid for key in world.tokens.trust().keys} == {first, kid}
    between = await world.tokens.exchange(made.secret)
    world.now += 12.0
    after = await world.tokens.exchange(made.secret)
    for token in (old, between, after):
        assert world.verifier.verify(token.text).name == "principals/ada"
    assert [_kid(token.text) for token in (old, between, after)] == [first, first, kid]

    world.now += MAX_LIFETIME_SECONDS + 200
    await world.tokens.refresh()
    assert [key.kid for key in world.tokens.trust().keys] == [kid]


def _kid(text: str) -> str:
    return str(jwt.get_unverified_header(text)["kid"])


async def test_revocations_reach_the_trust_and_leave_it_again(world: _World) -> None:
    made = await world.key()
    token = await world.tokens.exchange(made.secret)
    for revoked in [
        Revocations(key_ids=(made.key.id,)),
        Revocations(principals=("principals/ada",)),
        Revocations(valid_from={"principals/ada": int(world.now) + 1}),
    ]:
        world.store.revoked = revoked
        await world.tokens.refresh()
        with pytest.raises(Unauthenticated):
            world.verifier.verify(token.text)

    world.store.revoked = Revocations()
    await world.tokens.refresh()
    assert world.verifier.verify(token.text)


async def test_a_token_issued_right_after_a_change_of_roles_is_good(world: _World) -> None:
    changed = replace(ADA, tokens_valid_from=int(world.now) + 1)
    made = await world.key(changed)
    world.store.revoked = Revocations(valid_from={"principals/ada": changed.tokens_valid_from})
    await world.tokens.refresh()

    assert world.verifier.verify((await world.tokens.exchange(made.secret)).text)


class _Foreign(FakeCredentials):
    async def signing_keys(self) -> list[SigningKey]:
        raise WrongRootKey("k")


async def test_another_root_key_is_a_reason_not_a_crash() -> None:
    keys, foreign = ServiceKeys(None, time.monotonic), _Foreign()
    tokens = TokenIssuer(foreign, foreign, keys, TokenPolicy(), time.time, lambda trust: None)

    with pytest.raises(Unavailable, match="STELLWERK_ROOT_KEY"):
        await tokens.refresh()
    assert "STELLWERK_ROOT_KEY" in tokens.problem
