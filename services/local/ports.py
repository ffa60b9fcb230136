"""Finds free TCP ports and says why a port cannot be bound.

Ports that services keep across restarts lie below the range the kernel hands to outgoing
connections, so that no connection gets one of them while its service restarts. Platforms that
start at the same time get different ports: who reserves one holds a lock until the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import ipaddress
import os
import random
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path

from services.local.errors import StartFailed

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000
# What this process has reserved.
_reserved: set[int] = set()


def reserve(count: int, excluding: Collection[int] = ()) -> list[int]:
    """Returns `count` different TCP ports of 127.0.0.1 that nobody listens on now, and that no
    process of this user holds reserved.

    `excluding` holds ports that are promised to others and not bound yet. Raises StartFailed if
    too few are free.
    """
    candidates = [port for port in range(_LOWEST, _first_ephemeral()) if port not in excluding]
    random.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if _refusal("127.0.0.1", port) is None and _hold(port):
            found.append(port)
    if len(found) < count:
        raise StartFailed(
            f"there are no {count} free ports between {_LOWEST} and {_first_ephemeral()} on"
            " 127.0.0.1; stop programs that listen there"
        )
    return found


def free_port() -> int:
    """Reserves one TCP port and returns it; see `reserve`."""
    return reserve(1)[0]


def _hold(port: int) -> bool:
    """Reserves the port until this process ends; returns False if one has it already."""
    if port in _reserved:
        return False
    file = _lock_file()
    if file is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
    _reserved.add(port)
    return True


@functools.cache
def _lock_file() -> int | None:
    """Opens the file whose byte N is locked by the process that reserved port N.

    Returns None where it cannot be opened: ports are then only tried.
    """
    path = Path(tempfile.gettempdir()) / f"stellwerk-ports-{os.getuid()}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def outside_address(host: str) -> str:
    """Returns the address at which other machines reach what listens on `host`.

    For a wildcard it is the address that this machine sends from, or its name if it has no route.
    """
    if host not in ("0.0.0.0", "::", ""):
        return host
    family, documentation = (
        (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    )
    try:
        # Connecting a UDP socket chooses a route and sends nothing.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((documentation, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def require_host(host: str) -> None:
    """Raises StartFailed, naming --host, if `host` is no address of this machine."""
    refusal = _refusal(host, 0)
    if refusal is not None:
        raise StartFailed(
            f"--host {host} is no address of this machine ({_reason(refusal)}); give one of its"
            " addresses, such as 127.0.0.1, or 0.0.0.0 for all of them"
        )


def require(host: str, port: int, option: str) -> None:
    """Raises StartFailed, naming the port and the option, if `host:port` cannot be bound."""
    refusal = _refusal(host, port)
    if refusal is not None:
        raise StartFailed(
            f"cannot listen on {host}:{port} ({_reason(refusal)}); give another port with {option}"
        )


def _refusal(host: str, port: int) -> OSError | None:
    """Returns the error of binding `host:port`, None if it can be bound."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as exc:
        # A name with an empty or overlong label fails in the encoder, before any look-up.
        return exc if isinstance(exc, OSError) else OSError(errno.EINVAL, "not a name of a host")
    return None


def _reason(refusal: OSError) -> str:
    if refusal.errno == errno.EADDRINUSE:
        return "another program uses it"
    if refusal.errno == errno.EACCES:
        return "ports below 1024 need a privilege"
    return refusal.strerror or "not possible"


def _first_ephemeral() -> int:
    try:
        return max(int(_EPHEMERAL.read_text().split()[0]), _LOWEST + 1000)
    except (OSError, ValueError, IndexError):
        return 32_768
