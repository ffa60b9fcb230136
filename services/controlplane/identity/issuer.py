"""The built-in token issuer: ES256 keys with a `kid`, their JWKs, and the access tokens signed with
them.

Pure: time is an argument. A key that no longer signs stays in the key set until its last token has
lapsed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.permissions import Grant

AUDIENCE = "stellwerk"
ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"
DEFAULT_LIFETIME_SECONDS = 900
MAX_LIFETIME_SECONDS = 24 * 3600
# How much longer than any token's lifetime a retired key or a revocation is kept: the verifiers'
# leeway of 30 s, and the while another control plane may go on signing with a key before it hears
# of the rotation.
GRACE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key pair. It is published at once, signs from `signs_from` until `retired_at`, and
    what it signed verifies until `verify_until`. Unix seconds."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    signs_from: float
    retired_at: float | None = None

    @property
    def verify_until(self) -> float | None:
        return (
            None
            if self.retired_at is None
            else self.retired_at + MAX_LIFETIME_SECONDS + GRACE_SECONDS
        )

    def private_der(self) -> bytes:
        """The private key as unencrypted PKCS #8; for sealing only."""
        return self.private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def jwk(self) -> pb.Jwk:
        """The public half in JWK form (RFC 7517, RFC 7518 §6.2)."""
        x, y = _coordinates(self.private)
        return pb.Jwk(kty="EC", kid=self.kid, use="sig", alg=ALGORITHM, crv="P-256", x=x, y=y)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _coordinates(private: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    numbers = private.public_key().public_numbers()
    return _b64url(numbers.x.to_bytes(32, "big")), _b64url(numbers.y.to_bytes(32, "big"))


def thumbprint(private: ec.EllipticCurvePrivateKey) -> str:
    """The key's RFC 7638 thumbprint: SHA-256 over the required members in lexicographic order."""
    x, y = _coordinates(private)
    members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return _b64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def new_signing_key(signs_from: float) -> SigningKey:
    """A fresh key, named by its thumbprint."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(thumbprint(private), private, signs_from)


def read_signing_key(der: bytes, signs_from: float, retired_at: float | None) -> SigningKey:
    """A key from its PKCS #8 form; ValueError if it is no P-256 key."""
    private = serialization.load_der_private_key(der, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
        private.curve, ec.SECP256R1
    ):
        raise ValueError("a signing key is a P-256 key")
    return SigningKey(thumbprint(private), private, signs_from, retired_at)


def alive(keys: Iterable[SigningKey], now: float) -> tuple[SigningKey, ...]:
    """The keys whose tokens may still be good, or will be."""
    return tuple(key for key in keys if key.verify_until is None or key.verify_until > now)


def current(keys: Iterable[SigningKey], now: float) -> SigningKey | None:
    """The key that signs now: the newest that has begun and not retired, the same one for every
    control plane.

    None before the first key has begun.
    """
    signing = (
        key
        for key in keys
        if key.signs_from <= now and (key.retired_at is None or key.retired_at > now)
    )
    return max(signing, key=lambda key: (key.signs_from, key.kid), default=None)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token speaks for: principals/{principal} or services/{service}, and the key it was
    exchanged for.
    """

    name: str
    grants: tuple[Grant, ...]
    key_id: str = ""


def sign(
    key: SigningKey, issuer: str, subject: Subject, issued_at: float, expires_at: float
) -> str:
    """A signed access token (RFC 9068's `at+jwt`). Times are Unix seconds, cut to whole ones."""
    claims = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": subject.name,
        "iat": int(issued_at),
        "nbf": int(issued_at),
        "exp": int(expires_at),
        "jti": uuid.uuid4().hex,
        "grants": [[grant.role, grant.bucket] for grant in subject.grants],
        "key": subject.key_id,
    }
    return jwt.encode(
        claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid, "typ": TOKEN_TYPE}
    )
