"""One stream to the router that carries the calls of many callers. What gathers while a frame is on
its way goes with the next one; a lone call waits for nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import DeadlinePassed, ServiceError, Unavailable
from stellwerk.wire.frames import Gathering, tag, varint

# Bounds of one frame: more does not amortise better and delays the first call in it.
MAX_CALLS = 256
MAX_BYTES = 1024 * 1024
# Credentials that the other side keeps for us; beyond, all are forgotten and sent again as they are
# used.
MAX_CREDENTIALS = 4096
# How long after its deadline a call that the router did not answer ends here, at the earliest and
# at the latest; the router's own word is better. One look at all that wait is cheaper than a timer
# for each.
_OVERTIME_SECONDS, _LOOK_SECONDS = 0.06, 0.04
_CALL = tag(messages.ExchangeRequest, "calls")
_WORK = tag(messages.Call, "work")
# A frame counts as being on its way until any answer comes, for so long at most. gRPC's callers
# come one by one, and would fill frames of one or two without it; who calls alone has its answer
# before it calls again.
_UNDER_WAY_SECONDS = 0.003
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
# A router that restarts is back within moments: a call waits so long for a stream before it is told
# that there is none.
PATIENCE_SECONDS = 1.0

Open: TypeAlias = Callable[[], Awaitable[Any]]
# Takes every answer to one call, or the error that ends it.
Taker: TypeAlias = "Callable[[messages.Answer | ServiceError], None]"


def open_exchange(channel: Any) -> Open:
    """Opens the RPC on a channel of the chassis: frames of calls as bytes in, messages out."""
    service = messages.DESCRIPTOR.services_by_name["CallService"].full_name
    call: Open = channel.stream_stream(
        f"/{service}/Exchange", response_deserializer=messages.ExchangeResponse.FromString
    )
    return call


class _Waiting:
    """A call without its last answer."""

    __slots__ = ("expiry", "take")

    def __init__(self, take: Taker, expiry: float) -> None:
        self.take, self.expiry = take, expiry


class CallStream:
    """Keeps one stream open, for ever; calls fail at once while there is none."""

    def __init__(self, open_stream: Open) -> None:
        """`open_stream` opens the RPC, messages as they are; it raises a ServiceError."""
        self._open = open_stream
        self._stream: Any = None
        self._ids = 0
        self._waiting: dict[int, _Waiting] = {}
        self._look: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        # An answer has come since the last frame.
        self._heard = asyncio.Event()
        self.problem = "the router has not been reached yet"
        self._reset()

    def _reset(self) -> None:
        self._outgoing = Gathering(_CALL, MAX_CALLS, MAX_BYTES)
        # All that is said beside calls; it goes with the next frame, before the calls that name a
        # new credential.
        self._aside = messages.ExchangeRequest()
        self._credentials: dict[str, int] = {}
        self._credential_ids = 0

    @property
    def is_open(self) -> bool:
        """Whether calls can be sent now."""
        return self._stream is not None

    async def opened(self, seconds: float) -> None:
        """Returns when the stream is open, or after so many seconds."""
        try:
            await asyncio.wait_for(self._opened.wait(), min(seconds, PATIENCE_SECONDS))
        except TimeoutError:
            return

    def send(
        self, call: messages.Call, work: work_pb2.WorkItem, token: str, seconds: float, take: Taker
    ) -> int:
        """Sends a call, whose id and credential are set here, for this work; `take` hears of it
        until its end.

        Returns the id. Raises Unavailable when there is no stream; afterwards every end of the call
        is told to `take`.
        """
        if self._stream is None:
            raise Unavailable("the router does not answer; try again in a moment", service="router")
        self._ids += 1
        call.id = id = self._ids
        call.credential = self._credentials.get(token) or self._introduce(token)
        loop = asyncio.get_running_loop()
        self._waiting[id] = _Waiting(take, loop.time() + seconds + _OVERTIME_SECONDS)
        if self._look is None:
            self._look = loop.call_later(_LOOK_SECONDS, self._expire)
        head, body = call.SerializeToString(), work.SerializeToString()
        size = varint(len(body))
        self._outgoing.put(len(head) + len(_WORK) + len(size) + len(body), head, _WORK, size, body)
        self._wake.set()
        return id

    def forget(self, id: int) -> None:
        """The caller does not wait any more; the router is told, so that the work is not done in
        vain.
        """
        if self._waiting.pop(id, None) is not None and self._stream is not None:
            self._aside.cancelled.append(id)
            self._wake.set()

    def _introduce(self, token: str) -> int:
        if (
            len(self._credentials) >= MAX_CREDENTIALS and not self._outgoing
        ):  # no call that waits names one of them
            self._aside.dropped_credentials.extend(self._credentials.values())
            self._credentials.clear()
        self._credential_ids += 1
        self._credentials[token] = self._credential_ids
        self._aside.credentials.add(id=self._credential_ids, token=token)
        return self._credential_ids

    async def run(self) -> None:
        """Opens the stream, and opens it again whenever it ends."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                await self._session()
                pause = _SHORTEST_PAUSE
                self.problem = "the router ended the stream"
            except ServiceError as exc:
                self.problem = exc.message
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _session(self) -> None:
        stream = await self._open()
        self._reset()
        writing: asyncio.Task[None] | None = None
        try:
            # The router greets with an empty frame: from then on it takes calls.
            while (frame := await stream.read()) is not grpc.aio.EOF:
                if writing is None:
                    self._stream, self.problem = stream, ""
                    self._opened.set()
                    writing = asyncio.create_task(self._write(stream))
                self._heard.set()
                for answer in frame.answers:
                    self._take(answer)
        finally:
            self._stream = None
            self._opened.clear()
            stream.cancel()
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            self._fail_all()

    async def _write(self, stream: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while said := self._next_frame():
                await stream.write(said)
                await self._under_way()

    async def _under_way(self) -> None:
        self._heard.clear()
        try:
            async with asyncio.timeout(_UNDER_WAY_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            return

    def _next_frame(self) -> bytes:
        """What is to be sent next: all that is said aside, so that no call goes before its
        credential, and calls.
        """
        aside, self._aside = self._aside, messages.ExchangeRequest()
        return b"".join([aside.SerializeToString(), *self._outgoing.take()])

    def _take(self, answer: messages.Answer) -> None:
        waiting = (
            self._waiting.get(answer.id)
            if answer.reply.more
            else self._waiting.pop(answer.id, None)
        )
        if waiting is not None:
            waiting.take(answer)

    def _expire(self) -> None:
        """Ends the calls that have waited for too long; looks again as long as any waits."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for id, waiting in [(id, one) for id, one in self._waiting.items() if one.expiry <= now]:
            self.forget(id)
            waiting.take(
                DeadlinePassed("the router did not answer before the deadline", service="router")
            )
        self._look = loop.call_later(_LOOK_SECONDS, self._expire) if self._waiting else None

    def _fail_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.take(
                Unavailable(
                    "the router was lost before it answered; try again in a moment",
                    service="router",
                )
            )
