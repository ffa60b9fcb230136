"""Signs access tokens with ES256 keys, and writes the public keys as JWKs. Does no I/O; time is an
argument.

A retired key stays published until the last token that it signed has expired.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from services.controlplane.config import MAX_LIFETIME_SECONDS
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from stellwerk.wire.permissions import Grant

AUDIENCE = "stellwerk"
ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"
# Seconds beyond the longest lifetime of a token for which a retired key or a revocation is kept:
# the verifiers' leeway of 30 s, and the seconds for which another control plane signs with a key
# before it reads of the rotation.
GRACE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key pair, published at once, that signs from `signs_from` until `retired_at`; its
    signatures verify until `verify_until`. All three are Unix seconds.
    """

    kid: str
    private: ec.EllipticCurvePrivateKey
    signs_from: float
    retired_at: float | None = None

    @property
    def verify_until(self) -> float | None:
        """The time from which the key is no longer published; None for a key not retired."""
        return (
            None
            if self.retired_at is None
            else self.retired_at + MAX_LIFETIME_SECONDS + GRACE_SECONDS
        )

    def private_der(self) -> bytes:
        """Returns the private key as unencrypted PKCS #8, for sealing only."""
        return self.private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def jwk(self) -> pb.Jwk:
        """Returns the public key as a JWK (RFC 7517, RFC 7518 §6.2)."""
        public = ECKey.import_key(_public_der(self.private)).as_dict(private=False)
        return pb.Jwk(
            kty="EC",
            kid=self.kid,
            use="sig",
            alg=ALGORITHM,
            crv="P-256",
            x=str(public["x"]),
            y=str(public["y"]),
        )


def _public_der(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def thumbprint(private: ec.EllipticCurvePrivateKey) -> str:
    """Returns the public key's RFC 7638 thumbprint, a SHA-256 in URL-safe Base64."""
    return ECKey.import_key(_public_der(private)).thumbprint()


def new_signing_key(signs_from: float) -> SigningKey:
    """Returns a new random key whose id is its thumbprint."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(thumbprint(private), private, signs_from)


def read_signing_key(der: bytes, signs_from: float, retired_at: float | None) -> SigningKey:
    """Reads a key from its PKCS #8 form. Raises ValueError if it is no P-256 key."""
    private = serialization.load_der_private_key(der, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
        private.curve, ec.SECP256R1
    ):
        raise ValueError("a signing key is a P-256 key")
    return SigningKey(thumbprint(private), private, signs_from, retired_at)


def published_keys(keys: Iterable[SigningKey], now: float) -> tuple[SigningKey, ...]:
    """Returns the keys that verifiers need: those that sign, will sign, or signed live tokens."""
    return tuple(key for key in keys if key.verify_until is None or key.verify_until > now)


def key_that_signs(keys: Iterable[SigningKey], now: float) -> SigningKey | None:
    """Returns the key that signs now: the newest that has begun and is not retired, which is the
    same for every control plane; None before the first key has begun.
    """
    signing = (
        key
        for key in keys
        if key.signs_from <= now and (key.retired_at is None or key.retired_at > now)
    )
    return max(signing, key=lambda key: (key.signs_from, key.kid), default=None)


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a token: the name principals/{principal} or services/{service}, its grants,
    and the id of the API key that the token is issued for.
    """

    name: str
    grants: tuple[Grant, ...]
    key_id: str = ""


def sign(
    key: SigningKey, issuer: str, subject: Subject, issued_at: float, expires_at: float
) -> str:
    """Returns a signed access token (`at+jwt`, RFC 9068); its times are whole Unix seconds."""
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
