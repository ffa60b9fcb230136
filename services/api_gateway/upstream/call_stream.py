"""One stream to the router that carries the calls of many callers, several in a frame.

Calls that arrive while a frame is on its way go together in the next one; a lone call goes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from services.api_gateway.upstream.call_groups import CallForm, CallGroups
from services.api_gateway.upstream.replies import Caller, GroupReply, ModelReply
from services.chassis import background
from services.chassis.context import CallContext
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import DeadlinePassed, ServiceError, Unavailable, from_work_error
from stellwerk.wire.frames import FrameBuffer, tag

# The most calls and bytes in a frame: more would not make a call cheaper, and delays the first one.
MAX_CALLS = 256
MAX_BYTES = 1024 * 1024
# Tokens that the router keeps for this stream. When it is full, all are dropped and each is sent
# again with the next call that uses it.
MAX_CREDENTIALS = 4096
# Seconds after its deadline at which a call without an answer is ended here: the router's own error
# for it is better, so the router gets 0.06 s more. One look every 0.04 s at all pending calls is
# cheaper than a timer for each.
_OVERTIME_SECONDS = 0.06
_LOOK_SECONDS = 0.04
_CALL = tag(messages.ExchangeRequest, "calls")
_WORK = tag(messages.Call, "work")
# Seconds for which a frame counts as on its way, unless an answer comes sooner. Callers of gRPC
# arrive one by one; without this pause their frames would hold one call or two (decision 19). A
# lone caller has its answer before its next call.
UNDER_WAY_SECONDS = 0.003
# Seconds between two attempts to open the stream: the first pause, doubled up to the longest.
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
# Seconds that a call waits for the stream to open before it fails: a router that restarts is back
# within moments.
PATIENCE_SECONDS = 1.0

OpenStream: TypeAlias = Callable[[], Awaitable[Any]]


def open_exchange(channel: Any) -> OpenStream:
    """Returns what opens the RPC on a channel of the chassis: bytes in, messages out."""
    service = messages.DESCRIPTOR.services_by_name["CallService"].full_name
    call: OpenStream = channel.stream_stream(
        f"/{service}/Exchange", response_deserializer=messages.ExchangeResponse.FromString
    )
    return call


class _PendingCall:
    """A call without its last answer, and the loop time at which it is given up."""

    __slots__ = ("caller", "expiry")

    def __init__(self, caller: Caller, expiry: float) -> None:
        self.caller = caller
        self.expiry = expiry


class CallStream:
    """Keeps one stream open, for ever; while there is none, calls fail at once."""

    def __init__(
        self, open_stream: OpenStream, *, under_way_seconds: float = UNDER_WAY_SECONDS
    ) -> None:
        """Opens its stream with `open_stream`, which raises ServiceError if it cannot."""
        self._open = open_stream
        self._under_way_seconds = under_way_seconds
        # Whether calls can be sent now.
        self.is_open = False
        self._last_id = 0
        self._pending: dict[int, _PendingCall] = {}
        self._look: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        # Whether the last frame is still under way.
        self._under_way = False
        # Set when it no longer is, and by a group that is full meanwhile.
        self._go_on = asyncio.Event()
        self.problem = "the router has not been reached yet"
        self._reset()

    def _reset(self) -> None:
        """Forgets frames and credentials: a new stream begins without either."""
        self._calls = FrameBuffer(_CALL, _WORK, MAX_CALLS, MAX_BYTES)
        self._groups = CallGroups(MAX_CALLS, MAX_BYTES)
        # Credentials and cancellations. They go at the head of the next frame, so that a credential
        # arrives before the calls that name it.
        self._control = messages.ExchangeRequest()
        self._credentials: dict[str, int] = {}
        self._last_credential_id = 0

    async def wait_open(self, seconds: float) -> None:
        """Returns when the stream is open, or after `seconds`, at most PATIENCE_SECONDS."""
        try:
            async with asyncio.timeout(min(seconds, PATIENCE_SECONDS)):
                await self._opened.wait()
        except TimeoutError:
            return

    def send(
        self,
        call: messages.Call,
        work: work_pb2.WorkItem,
        token: str,
        seconds: float,
        caller: Caller,
    ) -> int:
        """Sends a call that travels alone, and returns its id, which is set here.

        `caller` hears of each reply until the last one, or of one error, within `seconds` and
        0.1 s. Raises Unavailable when there is no stream; then the caller hears nothing.
        """
        call.id = id = self._begin(seconds, caller)
        call.credential = self._credentials.get(token) or self._introduce(token)
        self._calls.put((call.SerializeToString(), work.SerializeToString()))
        self._wake.set()
        return id

    def send_member(
        self,
        form: CallForm,
        data: Sequence[bytes],
        call: CallContext,
        seconds: float,
        caller: Caller,
    ) -> int:
        """Sends a call that may share a group with others of its form and token; see `send`.

        `data` holds the bytes of each of the form's inputs.
        """
        id = self._begin(seconds, caller)
        credential = self._credentials.get(call.token) or self._introduce(call.token)
        self._groups.put(form, credential, data, id, max(1, int(seconds * 1000)), call)
        if self._groups.full:
            self._go_on.set()
        self._wake.set()
        return id

    def _begin(self, seconds: float, caller: Caller) -> int:
        """Returns the id of a new call that is pending from now on. Raises Unavailable."""
        if not self.is_open:
            raise Unavailable("the router does not answer; try again in a moment", service="router")
        self._last_id = id = self._last_id + 1
        loop = asyncio.get_running_loop()
        self._pending[id] = _PendingCall(caller, loop.time() + seconds + _OVERTIME_SECONDS)
        if self._look is None:
            self._look = loop.call_later(_LOOK_SECONDS, self._expire)
        return id

    def forget(self, id: int) -> None:
        """Drops a call whose caller is gone and tells the router, so that it spares the work."""
        if self._pending.pop(id, None) is not None and self.is_open:
            self._control.cancelled.append(id)
            self._wake.set()

    def _introduce(self, token: str) -> int:
        """Returns a new credential id for the token, and sends both with the next frame."""
        # Dropped only while no call waits to be sent, because such a call names a credential.
        waiting = self._calls or self._groups
        if len(self._credentials) >= MAX_CREDENTIALS and not waiting:
            self._control.dropped_credentials.extend(self._credentials.values())
            self._credentials.clear()
        self._last_credential_id += 1
        self._credentials[token] = self._last_credential_id
        self._control.credentials.add(id=self._last_credential_id, token=token)
        return self._last_credential_id

    async def run(self) -> None:
        """Opens the stream, and opens it again whenever it ends, until it is cancelled."""
        await background.run_forever(
            self._session,
            self._failed,
            expected=ServiceError,
            first_seconds=_SHORTEST_PAUSE,
            longest_seconds=_LONGEST_PAUSE,
        )

    def _failed(self, error: Exception, repeats: bool) -> None:
        self.problem = str(error)

    async def _session(self, succeeded: Callable[[], None]) -> None:
        """Opens the stream and reads it until it ends. Raises the ServiceError it ends with."""
        writing: asyncio.Task[None] | None = None
        try:
            with await self._open() as stream:
                self._reset()
                while (frame := await stream.read()) is not grpc.aio.EOF:
                    # The router's first frame is an empty greeting: from then on it takes calls.
                    if writing is None:
                        self.is_open = True
                        self.problem = ""
                        succeeded()
                        self._opened.set()
                        writing = asyncio.create_task(self._write(stream))
                    self._arrived()
                    for answer in frame.answers:
                        self._deliver(answer)
                    for group in frame.groups:
                        self._deliver_group(group)
        finally:
            self.is_open = False
            self._opened.clear()
            self._fail_all()
            if writing is not None:
                await background.end(writing)
        raise Unavailable("the router ended the stream")

    async def _write(self, stream: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while frame := self._next_frame():
                await stream.write(frame)
                await self._frame_under_way(stream)

    async def _frame_under_way(self, stream: Any) -> None:
        """Waits for an answer, but not for long, and sends the groups that are full meanwhile."""
        self._under_way = True
        timer = asyncio.get_running_loop().call_later(self._under_way_seconds, self._arrived)
        try:
            while self._under_way:
                if self._groups.full:
                    await stream.write(self._next_frame(full=True))
                else:
                    self._go_on.clear()
                    await self._go_on.wait()
        finally:
            timer.cancel()

    def _arrived(self) -> None:
        """Ends the time for which the last frame counts as under way."""
        self._under_way = False
        self._go_on.set()

    def _next_frame(self, *, full: bool = False) -> bytes:
        """Returns the next frame, empty if there is nothing to send; with `full` one of full groups
        only.
        """
        control = self._control
        self._control = messages.ExchangeRequest()
        if full:
            # They go after the calls that they cancel, which may still wait.
            self._control.cancelled.extend(control.cancelled)
            control.ClearField("cancelled")
        calls = [] if full else self._calls.take()
        return b"".join([control.SerializeToString(), *calls, *self._groups.take(full=full)])

    def _deliver(self, answer: messages.Answer) -> None:
        reply = answer.reply
        calls = self._pending
        pending = calls.get(answer.id) if reply.more else calls.pop(answer.id, None)
        # None: the call was given up before its answer came.
        if pending is None:
            return
        if reply.HasField("error"):
            pending.caller.failed(from_work_error(reply.error))
        else:
            found = ModelReply(answer.model_version, reply.outputs, not reply.more)
            pending.caller.replied(found)

    def _deliver_group(self, answer: messages.AnswerGroup) -> None:
        group = GroupReply(answer)
        for index, id in enumerate(answer.ids):
            pending = self._pending.pop(id, None)
            if pending is not None:
                pending.caller.replied_in_group(group, index)

    def _expire(self) -> None:
        """Ends the calls whose expiry has passed; looks again while any call is pending."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for id, call in [(id, call) for id, call in self._pending.items() if call.expiry <= now]:
            self.forget(id)
            call.caller.failed(
                DeadlinePassed("the router did not answer before the deadline", service="router")
            )
        self._look = loop.call_later(_LOOK_SECONDS, self._expire) if self._pending else None

    def _fail_all(self) -> None:
        pending = self._pending
        self._pending = {}
        for call in pending.values():
            call.caller.failed(
                Unavailable(
                    "the router was lost before it answered; try again in a moment",
                    service="router",
                )
            )
