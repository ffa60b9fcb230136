"""Encrypts secrets that rest in the database, so that a copy of the database alone signs nothing.

The encryption key is derived from the root key, which never enters the database. Each secret is
bound to the name it is stored under.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.controlplane.config import MIN_ROOT_KEY_LENGTH

# Bytes; the nonce size that AES-GCM is specified for (NIST SP 800-38D).
_NONCE_BYTES = 12
_PURPOSE = b"stellwerk controlplane: seals signing keys, v1"


class WrongRootKey(Exception):
    """Raised for bytes that were sealed with another root key or name, or changed since."""


class Sealer:
    """Encrypts with AES-256-GCM under a key that HKDF derives from the root key; a random root key
    needs no salt and no slow hash.
    """

    def __init__(self, root_key: str) -> None:
        if len(root_key) < MIN_ROOT_KEY_LENGTH:
            raise ValueError(f"a root key has at least {MIN_ROOT_KEY_LENGTH} characters")
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(
            root_key.encode()
        )
        self._cipher = AESGCM(key)

    def seal(self, name: str, secret: bytes) -> bytes:
        """Returns the secret encrypted and bound to `name`, after a nonce drawn for this call."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Returns the secret that `seal` encrypted. Raises WrongRootKey for another root key,
        another name or changed bytes.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as exc:
            raise WrongRootKey(name) from exc
