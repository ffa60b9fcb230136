"""Ports of this machine: free ones for what only the platform's own processes use, and a clear word
when one is taken.

Ports that are kept for later starts lie below the range the kernel hands to outgoing connections,
so that nobody gets one of them by chance while its service restarts.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000


class PortTaken(Exception):
    """A port that was asked for cannot be had; the message says which option to change."""


def reserve(count: int, excluding: Collection[int] = ()) -> list[int]:
    """Returns `count` different TCP ports of 127.0.0.1 that nobody listens on now.

    `excluding` holds ports that are promised to others and not bound yet. Raises PortTaken if too
    few are free.
    """
    candidates = [port for port in range(_LOWEST, _first_ephemeral()) if port not in excluding]
    random.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if problem("127.0.0.1", port) is None:
            found.append(port)
    if len(found) < count:
        raise PortTaken(
            f"there are no {count} free ports between {_LOWEST} and {_first_ephemeral()} on"
            " 127.0.0.1"
        )
    return found


def require(host: str, port: int, option: str) -> None:
    """Raises PortTaken, naming the port and the option, if `host:port` cannot be bound."""
    reason = problem(host, port)
    if reason is not None:
        raise PortTaken(
            f"cannot listen on {host}:{port} ({reason}); give another port with {option}"
        )


def problem(host: str, port: int) -> str | None:
    """Why `host:port` cannot be bound, None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            return (
                "another program uses it"
                if exc.errno == errno.EADDRINUSE
                else (exc.strerror or "not possible")
            )
    return None


def _first_ephemeral() -> int:
    try:
        return max(int(_EPHEMERAL.read_text().split()[0]), _LOWEST + 1000)
    except (OSError, ValueError, IndexError):
        return 32_768
