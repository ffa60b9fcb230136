"""Finds the platform and the credentials: arguments first, then the environment, then a platform
that runs on this machine.

The one file of the SDK that reads the environment.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from stellwerk.client.errors import InvalidInput, Unauthenticated, Unavailable

URL = "STELLWERK_URL"
TOKEN = "STELLWERK_TOKEN"
TOKEN_FILE = "STELLWERK_TOKEN_FILE"
CA = "STELLWERK_CA"
DATA_DIR = "STELLWERK_DATA_DIR"
_SCHEMES = ("http", "https", "grpc", "grpcs")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The platform's address and the credentials for it."""

    url: str
    # An access token, or an API key, which the platform exchanges itself.
    token: str | None
    # A file with the certificates of the authority to trust, in PEM; None for the machine's own.
    ca: Path | None = None

    @property
    def secure(self) -> bool:
        """The use of TLS: true for https and grpcs."""
        return urlsplit(self.url).scheme in ("https", "grpcs")

    @property
    def loopback(self) -> bool:
        """The place of the platform: true if it is on this machine, so that no proxy stands
        between.
        """
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def environment() -> Mapping[str, str]:
    """Returns the variables of this process."""
    return os.environ


def resolve(
    url: str | None,
    token: str | None,
    ca: str | Path | None,
    environ: Mapping[str, str],
    data_dir: str | Path | None = None,
) -> Endpoint:
    """Returns the platform to talk to.

    What is not given comes from `environ`. Without a URL it is the platform that `stellwerk up`
    keeps in `data_dir`, in STELLWERK_DATA_DIR or in the user's data folder; an explicit `data_dir`
    comes before STELLWERK_URL. Raises InvalidInput for an impossible address or file,
    Unauthenticated for a token that cannot be one, Unavailable if no platform is known.
    """
    if data_dir is None:
        url = url or environ.get(URL)
    elif url is not None:
        raise InvalidInput("give url or data_dir, not both", field="data_dir")
    token = token or environ.get(TOKEN) or _read_token(environ.get(TOKEN_FILE))
    ca = ca or environ.get(CA)
    if url is None:
        folder = data_dir or environ.get(DATA_DIR) or platformdirs.user_data_dir("stellwerk")
        url, local_token = _local_platform(Path(folder).expanduser())
        token = token or local_token
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise InvalidInput(
            f"'{url}' is no address of a platform; it looks like http://host:port or"
            " grpc://host:port",
            url=url,
        )
    if token is not None and (not token.isascii() or any(mark.isspace() for mark in token)):
        raise Unauthenticated(
            "the token holds characters that no token has; is the right file or variable used?"
        )
    return Endpoint(url.rstrip("/"), token or None, _check_ca(Path(ca)) if ca else None)


def _check_ca(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as exc:
        raise InvalidInput(f"{path} holds no certificates in PEM form", path=str(path)) from exc
    return path


def _local_platform(data_dir: Path) -> tuple[str, str | None]:
    """Returns address and token of the platform that keeps its data in `data_dir`, from the file
    that is there while the platform runs. Raises Unavailable if there is none.
    """
    try:
        ready = json.loads((data_dir / "ready.json").read_text())
        return str(ready["http"]), _read_token(ready.get("token_file"))
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"no platform runs from {data_dir}; start one with `stellwerk up`, or give its url and"
            f" token ({URL}, {TOKEN}), or the data_dir of one that runs on this machine"
            f" ({DATA_DIR})",
            retry_after_ms=0,
            data_dir=data_dir,
        ) from None


def _read_token(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as exc:
        raise InvalidInput(
            f"the token file {path} cannot be read: {exc.strerror}", path=path
        ) from exc
