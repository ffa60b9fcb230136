"""Publishing with confirms, pipelined: nobody waits for anybody else's confirm, and everybody gets
their own answer.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict

from services.chassis.broker.amqp.channel import Channel, ChannelGone
from services.chassis.broker.amqp.link import KeptChannel, Link
from services.chassis.broker.port import Message
from stellwerk.wire.errors import BrokerDown, Overloaded, ServiceError, TooLarge, Unroutable
from stellwerk.wire.topology import EVENTS_EXCHANGE

# A broker that has not confirmed the oldest message for so long is not asked again until it does:
# what it does not read would pile up in our memory.
_STALLED_SECONDS = 5.0
# Callers with almost the same deadline are told together.
_ROUGHLY_SECONDS = 0.02
_SIZE_LIMIT = re.compile(r"message size \d+ is larger than configured max size (\d+)")


class _Sent:
    """A message on its way. It stays until its confirm, though nobody may wait any more."""

    __slots__ = ("answer", "at", "deadline", "queue", "returned", "size")

    def __init__(
        self, answer: asyncio.Future[None], at: float, deadline: float, size: int, queue: str
    ) -> None:
        self.answer, self.at, self.deadline = answer, at, deadline
        self.size, self.queue, self.returned = size, queue, False


class Publisher:
    """The publishing side of a broker, on a connection of its own so that an alarm never stops
    consumption.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kept = KeptChannel(link, self._set_up, self._on_closed)
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._last_tag = 0
        self._size_limit = 0
        self._posting: set[asyncio.Task[None]] = set()
        # One timer for all who wait: at the earliest of their deadlines.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def start(self) -> None:
        self._kept.start()

    async def stop(self) -> None:
        await self._kept.stop()
        self._fail_all(
            BrokerDown("the broker connection was closed before it confirmed; try again")
        )
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stalled(self) -> bool:
        """Whether the broker owes a confirm for too long."""
        if not self._sent:
            return False
        oldest = next(iter(self._sent.values()))
        return asyncio.get_running_loop().time() - oldest.at > _STALLED_SECONDS

    def post(
        self, exchange: str, key: str, message: Message, *, mandatory: bool, timeout: float
    ) -> asyncio.Future[None]:
        """Sends; the future is done with the confirm. It ends with Unroutable, Overloaded,
        TooLarge, BrokerDown.
        """
        channel = self._kept.current
        if channel is not None and not self._link.blocked:
            return self._send(channel, exchange, key, message, mandatory, timeout)
        waiting = self._post_later(exchange, key, message, mandatory, timeout)
        posting = asyncio.get_running_loop().create_task(waiting)
        self._posting.add(posting)
        posting.add_done_callback(self._posting.discard)
        return posting

    async def _post_later(
        self, exchange: str, key: str, message: Message, mandatory: bool, timeout: float
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                channel = await self._kept.ready(self._link.patience(timeout))
                await self._link.unblocked()
                await self._send(channel, exchange, key, message, mandatory, timeout)
        except TimeoutError:
            raise self._link.down() from None

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
        refusal = self._refusal(size, now)
        if refusal is None:
            try:
                channel.publish(
                    exchange, key, message, mandatory=mandatory, mark=str(tag) if mandatory else ""
                )
            except ChannelGone:
                refusal = self._link.down()
        if refusal is not None:
            answer.set_exception(refusal)
            return answer
        self._last_tag = tag
        self._sent[tag] = _Sent(answer, now, now + timeout, size, key)
        if now + timeout < self._timer_at:
            self._wake_at(loop, now + timeout)
        return answer

    def _refusal(self, size: int, now: float) -> ServiceError | None:
        """Why a message is not even sent."""
        if self._sent and now - next(iter(self._sent.values())).at > _STALLED_SECONDS:
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
        """Tells those whose time is over, and sleeps until the next one's."""
        self._timer, self._timer_at = None, math.inf
        now = loop.time() + _ROUGHLY_SECONDS
        later = math.inf
        for sent in self._sent.values():
            if sent.answer.done():
                continue
            if sent.deadline <= now:
                sent.answer.set_exception(self._link.down())
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
                _settle(sent, accepted)
            return
        while self._sent and next(iter(self._sent)) <= tag:
            _settle(self._sent.popitem(last=False)[1], accepted)

    def _on_closed(self, gone: ChannelGone) -> None:
        limit = _SIZE_LIMIT.search(gone.text)
        if limit:
            self._size_limit = int(limit.group(1))
        self._fail_all(BrokerDown("the broker connection was lost before it confirmed; try again"))

    def _fail_all(self, error: BrokerDown) -> None:
        while self._sent:
            sent = self._sent.popitem(last=False)[1]
            if not sent.answer.done():
                too_large = self._size_limit and sent.size > self._size_limit
                sent.answer.set_exception(_too_large(self._size_limit) if too_large else error)


def _settle(sent: _Sent, accepted: bool) -> None:
    if sent.answer.done():
        return
    if sent.returned:
        sent.answer.set_exception(
            Unroutable(f"there is no queue {sent.queue}; declare it first", queue=sent.queue)
        )
    elif not accepted:
        sent.answer.set_exception(
            Overloaded(f"queue {sent.queue} is full; try again later", queue=sent.queue)
        )
    else:
        sent.answer.set_result(None)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the broker takes messages of at most {limit} bytes; send the payload by reference",
        limit=limit,
    )
