"""What a client shows to be let in. An API key is exchanged for short-lived tokens; a token is sent as it is. Pure."""

from __future__ import annotations

API_KEY_PREFIX = "swk_"
# A token is renewed when this share of its life is over, so that none lapses on the way.
RENEW_AFTER = 0.8


class Credentials:
    """The bearer token to send, and when to get another one."""

    def __init__(self, secret: str | None) -> None:
        self._api_key = secret if secret and secret.startswith(API_KEY_PREFIX) else None
        self._token = "" if self._api_key else secret or ""
        self._renew_at = 0.0

    @property
    def authorization(self) -> str:
        """The Authorization value to send now; "" for none."""
        return f"Bearer {self._token}" if self._token else ""

    def to_exchange(self, now: float) -> str | None:
        """The API key, if a token must be got for it before the next call."""
        return self._api_key if now >= self._renew_at else None

    def keep(self, token: str, lifetime: float, now: float) -> None:
        """Takes the token that the API key was exchanged for."""
        self._token, self._renew_at = token, now + lifetime * RENEW_AFTER

    def drop(self) -> bool:
        """Lets a refused token go. False if there is no key to get another one for."""
        if self._api_key is None or not self._token:
            return False
        self._token, self._renew_at = "", 0.0
        return True
