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
    # Where the token was found, for sentences: an argument, a variable or a file.
    token_source: str = ""
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
    keeps in `data_dir`, in STELLWERK_DATA_DIR or in the user's data folder. An explicit `data_dir`
    comes before STELLWERK_URL, and its platform's token before the environment's. Raises
    InvalidInput for an impossible address or file, Unauthenticated for a token that cannot be one,
    Unavailable if no platform is known.
    """
    if data_dir is None:
        url = url or environ.get(URL)
    elif url is not None:
        raise InvalidInput("give url= or data_dir=, not both", field="data_dir")
    ca = ca or environ.get(CA)
    token_file = ""
    if url is None:
        url, token_file = _local_platform(_data_folder(data_dir, environ))
    # The environment's token is that of another platform than an explicit directory's.
    token, source = _find_token(token, environ if data_dir is None else {})
    if token is None and token_file:
        token, source = _read_token(token_file), f"the file {token_file}"
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise InvalidInput(
            f"'{url}' is no address of a platform; it looks like http://host:port or"
            " grpc://host:port",
            url=url,
        )
    if token is not None and (not token.isascii() or any(mark.isspace() for mark in token)):
        raise Unauthenticated(
            f"the token from {source} holds characters that no token has; is it the right one?"
        )
    authority = _check_ca(Path(ca)) if ca else None
    return Endpoint(url.rstrip("/"), token or None, source if token else "", authority)


def _find_token(given: str | None, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Returns the token of the argument or of the environment, and where it was found."""
    if given:
        return given, "the argument token="
    if environ.get(TOKEN):
        return environ[TOKEN], f"the variable {TOKEN}"
    path = environ.get(TOKEN_FILE)
    if path:
        return _read_token(path), f"the file {path} ({TOKEN_FILE})"
    return None, ""


def _check_ca(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as exc:
        raise InvalidInput(f"{path} holds no certificates in PEM form", path=str(path)) from exc
    return path


def _data_folder(data_dir: str | Path | None, environ: Mapping[str, str]) -> Path:
    """Returns the data directory to look in. Raises InvalidInput for a text that names none."""
    given = data_dir
    if given is None:
        given = environ.get(DATA_DIR) or platformdirs.user_data_dir("stellwerk")
    if not str(given).strip():
        raise InvalidInput("data_dir= is empty; give a directory", field="data_dir")
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise InvalidInput(
            f"the home directory in {given} is not known; write the path out", field="data_dir"
        ) from None


def _local_platform(data_dir: Path) -> tuple[str, str]:
    """Returns address and token file of the platform that keeps its data in `data_dir`.

    Reads the file that is there while the platform runs. Raises Unavailable if there is none.
    """
    try:
        ready = json.loads((data_dir / "ready.json").read_text())
        return str(ready["http"]), str(ready.get("token_file") or "")
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"no platform runs from {data_dir}; start one with `stellwerk up --data-dir"
            f" {data_dir}`, or give url= and token= ({URL}, {TOKEN}), or data_dir= of one that runs"
            f" on this machine ({DATA_DIR})",
            retry_after_ms=0,
            data_dir=data_dir,
        ) from None


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as exc:
        raise InvalidInput(
            f"the token file {path} cannot be read: {exc.strerror}", path=path
        ) from exc
