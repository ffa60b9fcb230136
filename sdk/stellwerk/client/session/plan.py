"""Describes an operation as a plan: a generator that yields steps, is sent their results and does
no I/O itself.

Each operation is therefore written once: a blocking session carries its plan out at once, an
asynchronous one when awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")
R = TypeVar("R", bound=Message)

# Called during a transfer with the bytes done and the bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Call:
    """Sends a request and gets its response. Retried on UNAVAILABLE if the RPC changes nothing."""

    request: Message
    # Seconds, retries included; None for the client's default.
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Streams a file as the raw body of a request and gets the response. Never retried."""

    request: Message
    path: Path
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """Streams the raw body of a response of `size` bytes into a file. Never retried."""

    request: Message
    path: Path
    size: int
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Runs a function that occupies the processor or the disk, in a thread of an asynchronous
    client.
    """

    run: Callable[[], Any]


Step = Call | Upload | Download | Work
Plan = Generator[Step, Any, T]


def call(request: Message, response: type[R], timeout: float | None = None) -> Plan[R]:
    """Calls the RPC of this request; returns its response."""
    return _expect((yield Call(request, timeout)), response)


def upload(request: Message, path: Path, response: type[R], progress: Progress | None) -> Plan[R]:
    """Streams the file at `path` to the RPC of this request; returns its response."""
    return _expect((yield Upload(request, path, progress)), response)


def work(run: Callable[[], T]) -> Plan[T]:
    """Runs a blocking function where it does not stop an event loop; returns its result."""
    result: T = yield Work(run)
    return result


def _expect(answer: object, response: type[R]) -> R:
    if not isinstance(answer, response):
        raise TypeError(f"expected {response.__name__}, got {type(answer).__name__}")
    return answer
