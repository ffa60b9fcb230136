"""The text form of API keys and service keys: `swk_<id>_<secret>` and `sws_<service>_<secret>`.

Writes and reads the form; random numbers and hashes are their callers'.
"""

from __future__ import annotations

import re

API_KEY_PREFIX = "swk_"
SERVICE_KEY_PREFIX = "sws_"
# Bytes of randomness in a key: its public id (16 hexadecimal digits) and its secret (43 characters
# of URL-safe Base64).
ID_BYTES = 8
SECRET_BYTES = 32
# Characters. Above the 79 of the longest key; a longer text is refused before it is matched, hashed
# or sent.
MAX_LENGTH = 128
# The regular expression of an API key, without groups.
API_KEY_PATTERN = API_KEY_PREFIX + r"[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
_API_KEY = re.compile(API_KEY_PATTERN)
# A service's name and a secret may both hold "_": the secret's fixed length tells them apart.
_SERVICE_KEY = re.compile(SERVICE_KEY_PREFIX + r"([a-z][a-z_]{0,30})_[A-Za-z0-9_-]{43}")


def api_key(key_id: str, secret: str) -> str:
    """Returns a principal's key."""
    return f"{API_KEY_PREFIX}{key_id}_{secret}"


def service_key(service: str, secret: str) -> str:
    """Returns a service's key."""
    return f"{SERVICE_KEY_PREFIX}{service}_{secret}"


def api_key_id(text: str) -> str | None:
    """Returns the public id of an API key, or None if the text is no API key."""
    match = _API_KEY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    return text[len(API_KEY_PREFIX) :].partition("_")[0] if match else None


def service_of_key(text: str) -> str | None:
    """Returns the service that a service key names, or None if the text is no service key."""
    match = _SERVICE_KEY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    return match[1] if match else None
