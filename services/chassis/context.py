"""The call being served: its caller, deadline, request id and trace. The guard binds it once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits

from stellwerk.wire.errors import DeadlinePassed
from stellwerk.wire.permissions import Grant

# Seconds that every process on the way of a call keeps of the time its caller gave it: the gateway,
# the router, and any service that asks another one. The last hop, a runtime, keeps nothing, so the
# innermost process reports a timeout. 0.02: through gateway and router a call loses 0.04 s, as with
# the 0.03 and 0.01 that the two kept until 2026-11, and an answer has two ticks of the router's
# timing wheel to get back.
HOP_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller, "principals/{principal}" or "services/{service}", with its grants."""

    name: str
    grants: tuple[Grant, ...] = ()
    key_id: str = ""
    expires_at: float = 0.0

    @property
    def is_service(self) -> bool:
        return self.name.startswith("services/")


@dataclass(slots=True)
class CallContext:
    """One call. `deadline` is a time.monotonic() value, None for a stream that may stay open."""

    method: str
    request_id: str
    peer: str = ""
    traceparent: str = ""
    tracestate: str = ""
    token: str = ""
    principal: Principal | None = None
    resource: str = ""
    deadline: float | None = None

    def remaining(self) -> float:
        """Returns the seconds left, at least 0; an hour if there is no deadline."""
        return 3600.0 if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def onward(self) -> float:
        """Returns the seconds that the next hop gets: those left here less HOP_SECONDS.

        Raises DeadlinePassed if none are left.
        """
        left = self.remaining() - HOP_SECONDS
        if left <= 0:
            raise DeadlinePassed("the call did not finish before its deadline")
        return left


# Seconds that work outside of a call may take.
_NO_CALL_SECONDS = 30.0
_current: ContextVar[CallContext | None] = ContextVar("stellwerk_call", default=None)
# The variable's own methods, because each request and each line of the log calls them and functions
# around them would double their cost.
# Returns the call being served in this task, None if there is none.
current: Callable[[], CallContext | None] = _current.get
# Makes a call the current one of this task and the tasks it starts.
bind: Callable[[CallContext | None], object] = _current.set


def work_deadline() -> float:
    """Returns the time.monotonic() at which work on the current call must end.

    The rest of the caller's time is for the answer; see `HOP_SECONDS`.
    """
    call = _current.get()
    seconds = _NO_CALL_SECONDS if call is None else call.remaining()
    return time.monotonic() + seconds - HOP_SECONDS


def caller() -> Principal:
    """Returns the caller. Raises RuntimeError outside of an authenticated call, which is a bug."""
    call = _current.get()
    if call is None or call.principal is None:
        raise RuntimeError("no authenticated call is being served here")
    return call.principal


def new_request_id() -> str:
    """Returns a new request id of 32 hexadecimal digits: unique, but no secret."""
    return f"{getrandbits(128):032x}"
