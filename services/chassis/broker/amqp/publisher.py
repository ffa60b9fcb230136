"""Publishes with confirms, pipelined: each message has its own confirm and waits for no other."""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.reconnecting import KeptChannel, KeptConnection
from services.chassis.broker.port import Message
from services.chassis.futures import settle
from stellwerk.wire.errors import BrokerDown, Overloaded, ServiceError, TooLarge, Unroutable
from stellwerk.wire.topology import EVENTS_EXCHANGE

# Seconds. A broker that owes the oldest confirm for longer gets no further message until it
# confirms: messages that it does not read would fill the memory of this process.
_STALLED_SECONDS = 5.0
# Seconds. Callers whose deadlines lie this close together are told by one timer; with the timer's
# own millisecond that is less than the port's EARLY_SECONDS.
_ROUGHLY_SECONDS = 0.02
_SIZE_LIMIT = re.compile(r"message size \d+ is larger than configured max size (\d+)")


class _Sent:
    """A message that awaits its confirm, even if its caller does not wait any more."""

    __slots__ = ("answer", "at", "deadline", "queue", "returned", "size")

    def __init__(
        self, answer: asyncio.Future[None], at: float, deadline: float, size: int, queue: str
    ) -> None:
        self.answer = answer
        self.at = at
        self.deadline = deadline
        self.size = size
        self.queue = queue
        self.returned = False


class Publisher:
    """Sends messages on a connection of their own, so that an alarm never stops consumption."""

    def __init__(self, connection: KeptConnection) -> None:
        self._connection = connection
        self._kept = KeptChannel(connection, self._set_up, self._on_closed)
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._last_tag = 0
        self._size_limit = 0
        self._posting: set[asyncio.Task[None]] = set()
        # One timer for all callers: at the earliest of their deadlines.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        # True while the broker owes a confirm for longer than 5 seconds; an attribute, because it
        # is read before every message.
        self.stalled = False
        # Looks at the oldest message; runs while there is one without a confirm.
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Opens the channel in the background."""
        self._kept.start()

    async def stop(self) -> None:
        """Closes the channel; messages without a confirm end with BrokerDown."""
        await self._kept.stop()
        self._fail_all(
            BrokerDown("the broker connection was closed before it confirmed; try again")
        )
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    def post(
        self,
        queue: str,
        message: Message,
        *,
        mandatory: bool = True,
        timeout: float = 5.0,
        exchange: str = "",
    ) -> asyncio.Future[None]:
        """Sends to a queue, or to an exchange with the routing key `queue`.

        The future ends with the confirm, or raises as `port.Broker.publish` does.
        """
        channel = self._kept.current
        if channel is not None and not self._connection.blocked:
            try:
                return self._send(channel, exchange, queue, message, mandatory, timeout)
            except ChannelGone:
                pass  # closed a moment ago; it is about to be opened anew
        waiting = self._post_later(exchange, queue, message, mandatory, timeout)
        posting = asyncio.get_running_loop().create_task(waiting)
        self._posting.add(posting)
        posting.add_done_callback(self._posting.discard)
        return posting

    async def _post_later(
        self, exchange: str, key: str, message: Message, mandatory: bool, timeout: float
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                channel = await self._kept.ready(self._connection.patience(timeout))
                await self._connection.unblocked()
                await self._send(channel, exchange, key, message, mandatory, timeout)
        except (ChannelGone, TimeoutError):
            raise self._connection.down() from None

    def _send(
        self,
        channel: Channel,
        exchange: str,
        key: str,
        message: Message,
        mandatory: bool,
        timeout: float,
    ) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        now, size = loop.time(), len(message.body)
        tag = self._last_tag + 1
        refusal = self._refusal(size)
        if refusal is not None:
            answer.set_exception(refusal)
            return answer
        mark = str(tag) if mandatory else ""
        channel.publish(exchange, key, message, mandatory=mandatory, mark=mark)
        self._last_tag = tag
        self._sent[tag] = _Sent(answer, now, now + timeout, size, key)
        if now + timeout < self._timer_at:
            self._wake_at(loop, now + timeout)
        if self._look is None:
            self._look = loop.call_later(_STALLED_SECONDS, self._look_at_oldest, loop)
        return answer

    def _look_at_oldest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notes whether the broker is stalled; looks again when it may be."""
        self._look = None
        self.stalled = False
        if self._sent:
            due = next(iter(self._sent.values())).at + _STALLED_SECONDS
            if due <= loop.time():
                self.stalled = True
            else:
                self._look = loop.call_at(due, self._look_at_oldest, loop)

    def _refusal(self, size: int) -> ServiceError | None:
        """Returns the error for a message that is not to be sent, None for any other."""
        if self.stalled:
            return BrokerDown("RabbitMQ does not confirm messages; try again shortly")
        if self._size_limit and size > self._size_limit:
            return _too_large(self._size_limit)
        return None

    def _wake_at(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = loop.call_at(deadline, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the calls whose deadline has passed; sets the timer to the next deadline."""
        self._timer = None
        self._timer_at = math.inf
        now = loop.time() + _ROUGHLY_SECONDS
        later = math.inf
        for sent in self._sent.values():
            if sent.answer.done():
                continue
            if sent.deadline <= now:
                sent.answer.set_exception(self._connection.down())
            else:
                later = min(later, sent.deadline)
        if later < math.inf:
            self._wake_at(loop, later)

    async def _set_up(self, channel: Channel) -> None:
        self._last_tag = 0
        await channel.confirms(self._on_confirm, self._on_return)
        await channel.declare_topics(EVENTS_EXCHANGE)

    def _on_return(self, mark: str) -> None:
        sent = self._sent.get(int(mark)) if mark.isdigit() else None
        if sent is not None:
            sent.returned = True

    def _on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        if not multiple:
            sent = self._sent.pop(tag, None)
            if sent is not None:
                _confirm(sent, accepted)
        else:
            while self._sent and next(iter(self._sent)) <= tag:
                _confirm(self._sent.popitem(last=False)[1], accepted)
        if self.stalled:
            self._look_at_oldest(asyncio.get_running_loop())

    def _on_closed(self, gone: ChannelGone) -> None:
        limit = _SIZE_LIMIT.search(gone.text)
        if limit:
            self._size_limit = int(limit.group(1))
        self._fail_all(BrokerDown("the broker connection was lost before it confirmed; try again"))

    def _fail_all(self, error: BrokerDown) -> None:
        while self._sent:
            sent = self._sent.popitem(last=False)[1]
            too_large = self._size_limit and sent.size > self._size_limit
            settle(sent.answer, _too_large(self._size_limit) if too_large else error)
        self.stalled = False


def _confirm(sent: _Sent, accepted: bool) -> None:
    if accepted and not sent.returned:
        if not sent.answer.done():
            sent.answer.set_result(None)
    elif sent.returned:
        error = f"there is no queue {sent.queue}; declare it first"
        settle(sent.answer, Unroutable(error, queue=sent.queue))
    else:
        error = f"queue {sent.queue} is full; try again later"
        settle(sent.answer, Overloaded(error, queue=sent.queue))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the broker takes messages of at most {limit} bytes; send the payload by reference",
        limit=limit,
    )
