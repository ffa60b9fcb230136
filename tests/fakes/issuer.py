"""A token issuer in a few lines: signs what a test asks for, good or bad, and gives the trust
bundle to verify it.
"""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from stellwerk.controlplane.v1 import identity_service_pb2 as identity

ISSUER = "stellwerk-test"


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")


class FakeIssuer:
    """One P-256 key under the id "k1"."""

    def __init__(self, kid: str = "k1") -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())

    def bundle(self, **revoked: Any) -> identity.GetTrustResponse:
        numbers = self.key.public_key().public_numbers()
        jwk = identity.Jwk(
            kty="EC",
            kid=self.kid,
            use="sig",
            alg="ES256",
            crv="P-256",
            x=_b64(numbers.x),
            y=_b64(numbers.y),
        )
        return identity.GetTrustResponse(issuer=ISSUER, keys=[jwk], **revoked)

    def claims(
        self, subject: str = "principals/ada", *grants: tuple[str, str], **changes: Any
    ) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "stellwerk",
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "jti": "t1",
            "grants": [list(grant) for grant in grants],
            "key": "key1",
        }
        claims.update(changes)
        return {key: value for key, value in claims.items() if value is not None}

    def token(
        self, subject: str = "principals/ada", *grants: tuple[str, str], **changes: Any
    ) -> str:
        """A token for the subject with these (role, bucket) grants; `changes` overwrite claims,
        None removes one.
        """
        return self.sign(self.claims(subject, *grants, **changes))

    def sign(self, claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
        return jwt.encode(
            claims, self.key, algorithm="ES256", headers={"kid": self.kid, **(headers or {})}
        )
