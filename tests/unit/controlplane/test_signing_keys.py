"""Keys that sign, keys that only verify, and tokens that the platform's own verifier takes or
refuses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.access.token_verifier import TokenVerifier
from services.controlplane.config import MAX_LIFETIME_SECONDS
from services.controlplane.identity.sealing import Sealer, WrongRootKey
from services.controlplane.identity.signing_keys import (
    GRACE_SECONDS,
    SigningKey,
    Subject,
    key_that_signs,
    new_signing_key,
    published_keys,
    read_signing_key,
    sign,
    thumbprint,
)
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.errors import Unauthenticated
from stellwerk.wire.permissions import Grant

NOW = 1_800_000_000.0
ADA = Subject("principals/ada", (Grant("editor"), Grant("viewer", "team-a")), "0123456789abcdef")
_KEY = new_signing_key(NOW)


def _verifier(*keys: SigningKey, now: float = NOW, **revoked: object) -> TokenVerifier:
    verifier = TokenVerifier(lambda: now)
    verifier.trust(
        pb.GetTrustResponse(issuer="stellwerk", keys=[key.jwk() for key in keys], **revoked)
    )  # type: ignore[arg-type]
    return verifier


def test_a_token_carries_the_claims_that_were_agreed_on() -> None:
    text = sign(_KEY, "stellwerk", ADA, NOW + 0.7, NOW + 900.7)

    header, claims = (
        jwt.get_unverified_header(text),
        jwt.decode(text, options={"verify_signature": False}),
    )

    assert header == {"alg": "ES256", "kid": _KEY.kid, "typ": "at+jwt"}
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "stellwerk",
        "aud": "stellwerk",
        "sub": "principals/ada",
        "iat": int(NOW),
        "nbf": int(NOW),
        "exp": int(NOW) + 900,
        "grants": [["editor", "*"], ["viewer", "team-a"]],
        "key": "0123456789abcdef",
    }


def test_the_platforms_verifier_takes_it() -> None:
    now = time.time()
    principal = _verifier(_KEY, now=now).verify(sign(_KEY, "stellwerk", ADA, now, now + 900))

    assert (principal.name, principal.grants, principal.key_id) == (
        ADA.name,
        ADA.grants,
        ADA.key_id,
    )


@pytest.mark.parametrize(
    "why, token",
    [
        ("expired", lambda now: sign(_KEY, "stellwerk", ADA, now - 900, now - 31)),
        ("not yet valid", lambda now: sign(_KEY, "stellwerk", ADA, now + 40, now + 900)),
        ("another issuer", lambda now: sign(_KEY, "elsewhere", ADA, now, now + 900)),
        (
            "a key that is not trusted",
            lambda now: sign(new_signing_key(now), "stellwerk", ADA, now, now + 900),
        ),
        (
            "signature stripped",
            lambda now: sign(_KEY, "stellwerk", ADA, now, now + 900).rpartition(".")[0] + ".",
        ),
    ],
)
def test_the_platforms_verifier_refuses(why: str, token: object) -> None:
    now = time.time()

    with pytest.raises(Unauthenticated):
        _verifier(_KEY, now=now).verify(token(now))  # type: ignore[operator]


def test_a_payload_cannot_be_swapped() -> None:
    now = time.time()
    header, payload, signature = sign(_KEY, "stellwerk", ADA, now, now + 900).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["grants"] = [["admin", "*"]]
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    with pytest.raises(Unauthenticated):
        _verifier(_KEY, now=now).verify(f"{header}.{forged}.{signature}")


@pytest.mark.parametrize(
    "revoked",
    [
        {"revoked_key_ids": [ADA.key_id]},
        {"revoked_principals": [ADA.name]},
        {"tokens_valid_from": {ADA.name: 4_000_000_000}},
    ],
)
def test_what_is_revoked_is_refused(revoked: dict[str, object]) -> None:
    now = time.time()

    with pytest.raises(Unauthenticated):
        _verifier(_KEY, now=now, **revoked).verify(sign(_KEY, "stellwerk", ADA, now, now + 900))


def test_a_kid_is_the_keys_thumbprint() -> None:
    jwk = _KEY.jwk()
    members = f'{{"crv":"P-256","kty":"EC","x":"{jwk.x}","y":"{jwk.y}"}}'
    expected = (
        base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()
    )

    assert jwk.kid == _KEY.kid == thumbprint(_KEY.private) == expected
    assert (jwk.kty, jwk.use, jwk.alg, jwk.crv) == ("EC", "sig", "ES256", "P-256")


def test_the_newest_key_that_has_begun_signs() -> None:
    old = SigningKey("old", _KEY.private, NOW, retired_at=NOW + 10)
    new = SigningKey("new", _KEY.private, NOW + 10)

    assert key_that_signs([], NOW) is None
    assert key_that_signs([new], NOW) is None
    assert key_that_signs([old, new], NOW + 9) is old
    assert key_that_signs([old, new], NOW + 10) is new


@given(st.lists(st.floats(0, 10_000), min_size=1, max_size=6))
def test_there_is_always_exactly_one_key_that_signs_once_the_first_has_begun(
    rotations: list[float],
) -> None:
    keys = [SigningKey("k0", _KEY.private, 0.0)]
    for number, at in enumerate(sorted(rotations), 1):
        begins = at + 12
        keys = [
            SigningKey(
                key.kid,
                key.private,
                key.signs_from,
                begins if key.retired_at is None else key.retired_at,
            )
            for key in keys
        ] + [SigningKey(f"k{number}", _KEY.private, begins)]

    for moment in [0.0, *rotations, *(at + 12 for at in rotations), *(at + 13 for at in rotations)]:
        signing = key_that_signs(keys, moment)
        assert signing is not None and signing in published_keys(
            keys, moment + MAX_LIFETIME_SECONDS
        )


def test_a_retired_key_verifies_until_its_last_token_has_lapsed() -> None:
    retired = SigningKey("k", _KEY.private, NOW, retired_at=NOW)

    assert published_keys([retired], NOW + MAX_LIFETIME_SECONDS + GRACE_SECONDS - 1)
    assert not published_keys([retired], NOW + MAX_LIFETIME_SECONDS + GRACE_SECONDS)


def test_a_key_survives_sealing_and_only_the_right_root_key_opens_it() -> None:
    sealer = Sealer("r" * 32)
    sealed = sealer.seal(_KEY.kid, _KEY.private_der())

    opened = read_signing_key(sealer.open(_KEY.kid, sealed), NOW, None)

    assert opened.jwk() == _KEY.jwk()
    assert _KEY.private_der() not in sealed and sealer.seal(_KEY.kid, b"x") != sealer.seal(
        _KEY.kid, b"x"
    )
    for other, name, data in [
        (Sealer("s" * 32), _KEY.kid, sealed),
        (sealer, "another", sealed),
        (sealer, _KEY.kid, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (sealer, _KEY.kid, b""),
    ]:
        with pytest.raises(WrongRootKey):
            other.open(name, data)


def test_a_short_root_key_seals_nothing() -> None:
    with pytest.raises(ValueError, match="32"):
        Sealer("r" * 31)
