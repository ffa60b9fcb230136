"""Seals secrets that rest in the database, so that a copy of the database alone signs nothing.

The key comes from the root key, which never enters the database; what is sealed is bound to the
name it is kept under.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Below this a root key could be guessed; 32 random characters hold at least 128 bits even in hex.
MIN_ROOT_KEY_LENGTH = 32
_NONCE_BYTES = 12
_PURPOSE = b"stellwerk controlplane: seals signing keys, v1"


class WrongRootKey(Exception):
    """The sealed bytes were not sealed with this root key under this name, or were changed
    since.
    """


class Sealer:
    """AES-256-GCM under a key derived from the root key. The root key is a random secret, so HKDF
    is enough: no salt, no slow hash."""

    def __init__(self, root_key: str) -> None:
        if len(root_key) < MIN_ROOT_KEY_LENGTH:
            raise ValueError(f"a root key has at least {MIN_ROOT_KEY_LENGTH} characters")
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(
            root_key.encode()
        )
        self._cipher = AESGCM(key)

    def seal(self, name: str, secret: bytes) -> bytes:
        """The secret, encrypted and bound to `name`. Each call draws a new nonce."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """The inverse of `seal`; WrongRootKey if key, name or bytes are others."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as exc:
            raise WrongRootKey(name) from exc
