"""Where the platform is and who is asking: arguments first, then the environment, then a platform
that runs here.

The one file of the SDK that reads the environment.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from stellwerk.client.errors import InvalidInput, Unauthenticated, Unavailable
from stellwerk.client.transport.port import Target

URL, TOKEN, TOKEN_FILE, CA = (
    "STELLWERK_URL",
    "STELLWERK_TOKEN",
    "STELLWERK_TOKEN_FILE",
    "STELLWERK_CA",
)
DATA_DIR = "STELLWERK_DATA_DIR"
_SCHEMES = ("http", "https", "grpc", "grpcs")


def environment() -> Mapping[str, str]:
    return os.environ


def resolve(
    url: str | None,
    token: str | None,
    ca: str | Path | None,
    environ: Mapping[str, str],
    data_dir: Path | None = None,
) -> Target:
    """The platform to talk to. Raises InvalidInput for an impossible address or file, Unavailable
    if none is known.
    """
    url = url or environ.get(URL)
    token = token or environ.get(TOKEN) or _read_token(environ.get(TOKEN_FILE))
    ca = ca or environ.get(CA)
    if url is None:
        local = _local_platform(data_dir or _data_dir(environ))
        if local is None:
            raise Unavailable(
                f"no platform is given and none runs here; run `stellwerk up`, or set {URL} and"
                f" {TOKEN}",
                retry_after_ms=0,
            )
        url, token = local[0], token or local[1]
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
    return Target(url.rstrip("/"), token or None, _check_ca(Path(ca)) if ca else None)


def _check_ca(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as exc:
        raise InvalidInput(f"{path} holds no certificates in PEM form", path=str(path)) from exc
    return path


def _data_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get(DATA_DIR) or platformdirs.user_data_dir("stellwerk"))


def _local_platform(data_dir: Path) -> tuple[str, str | None] | None:
    """Address and token of the platform that `stellwerk up` started here, from the file it leaves
    while it runs.
    """
    try:
        ready = json.loads((data_dir / "ready.json").read_text())
        return str(ready["http"]), _read_token(ready.get("token_file"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_token(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as exc:
        raise InvalidInput(
            f"the token file {path} cannot be read: {exc.strerror}", path=path
        ) from exc
