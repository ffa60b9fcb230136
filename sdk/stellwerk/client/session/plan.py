"""An operation is a plan: a generator that yields steps and is sent their results. It does no I/O
itself.

Each operation is therefore written once. `operation` lets a session carry the plan out: a blocking
session at once, an asynchronous one when awaited.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from google.protobuf.message import Message

if TYPE_CHECKING:
    from stellwerk.client.session.session import AsyncSession, SyncSession

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", bound=Message)
S_co = TypeVar("S_co", covariant=True)

# Told of a transfer: bytes done, bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request, get its response. Repeated on UNAVAILABLE if the RPC changes nothing."""

    request: Message
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Stream a file as the raw body of a request, get the response. Never repeated."""

    request: Message
    path: Path
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """Stream the raw body of a response into a file."""

    request: Message
    path: Path
    size: int
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Run something that takes the processor or the disk for a while."""

    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Step = Call | Upload | Download | Work | Pause
Plan = Generator[Step, Any, T]


def call(request: Message, response: type[R], timeout: float | None = None) -> Plan[R]:
    """Calls the RPC of this request."""
    return _expect((yield Call(request, timeout)), response)


def upload(request: Message, path: Path, response: type[R], progress: Progress | None) -> Plan[R]:
    """Streams a file to the RPC of this request."""
    return _expect((yield Upload(request, path, progress)), response)


def work(run: Callable[[], T]) -> Plan[T]:
    """Runs blocking work where it does not stop an event loop."""
    result: T = yield Work(run)
    return result


def _expect(answer: object, response: type[R]) -> R:
    if not isinstance(answer, response):
        raise TypeError(f"expected {response.__name__}, got {type(answer).__name__}")
    return answer


class HasSession(Protocol[S_co]):
    """What operations are methods of."""

    @property
    def session(self) -> S_co: ...


class operation(Generic[P, T]):
    """Makes a method that returns a plan into one that carries it out."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        self.plan = plan
        functools.update_wrapper(self, plan)  # type: ignore[arg-type]

    @overload
    def __get__(self, noun: None, owner: type) -> operation[P, T]: ...
    @overload
    def __get__(self, noun: HasSession[SyncSession], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, noun: HasSession[AsyncSession], owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, noun: Any, owner: type) -> Any:
        if noun is None:
            return self

        @functools.wraps(self.plan)
        def carry_out(*args: P.args, **kwargs: P.kwargs) -> Any:
            return noun.session.run(self.plan(noun, *args, **kwargs))

        return carry_out
