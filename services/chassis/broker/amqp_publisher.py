"""Publishing with confirms, pipelined: nobody waits for anybody else's confirm, and everybody gets their own answer."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass

from services.chassis.broker.amqp import Channel, ChannelGone
from services.chassis.broker.amqp_link import KeptChannel, Link
from services.chassis.broker.port import Message
from services.wire.errors import BrokerDown, Overloaded, TooLarge, Unroutable
from services.wire.topology import EVENTS_EXCHANGE

# A broker that has not confirmed the oldest message for so long is not asked again until it does: what it does not
# read would pile up in our memory.
_STALLED_SECONDS = 5.0
_SIZE_LIMIT = re.compile(r"message size \d+ is larger than configured max size (\d+)")


@dataclass(slots=True)
class _Sent:
    answer: asyncio.Future[None]
    at: float
    size: int
    queue: str
    returned: bool = False


class Publisher:
    """The publishing side of a broker, on a connection of its own so that an alarm never stops consumption."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kept = KeptChannel(link, self._set_up, self._on_closed)
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._last_tag = 0
        self._size_limit = 0

    def start(self) -> None:
        self._kept.start()

    async def stop(self) -> None:
        await self._kept.stop()
        self._fail_all(BrokerDown("the broker connection was closed before it confirmed; try again"))

    @property
    def stalled(self) -> bool:
        """Whether the broker owes a confirm for too long."""
        if not self._sent:
            return False
        oldest = next(iter(self._sent.values()))
        return asyncio.get_running_loop().time() - oldest.at > _STALLED_SECONDS

    async def publish(self, exchange: str, key: str, message: Message, *, mandatory: bool, timeout: float) -> None:
        """Sends and waits for the confirm. Raises Unroutable, Overloaded, TooLarge, BrokerDown."""
        try:
            async with asyncio.timeout(timeout):
                channel = self._kept.current
                if channel is None or self._link.blocked:
                    channel = await self._channel(timeout)
                await self._send(channel, exchange, key, message, mandatory)
        except TimeoutError:
            raise self._link.down() from None

    async def _channel(self, timeout: float) -> Channel:
        channel = await self._kept.ready(self._link.patience(timeout))
        await self._link.unblocked()
        return channel

    def _send(
        self, channel: Channel, exchange: str, key: str, message: Message, mandatory: bool
    ) -> asyncio.Future[None]:
        if self.stalled:
            raise BrokerDown("RabbitMQ does not confirm messages; try again shortly")
        if self._size_limit and len(message.body) > self._size_limit:
            raise _too_large(self._size_limit)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        tag = self._last_tag + 1
        try:
            channel.publish(exchange, key, message, mandatory=mandatory, mark=str(tag) if mandatory else "")
        except ChannelGone as exc:
            raise self._link.down() from exc
        self._last_tag = tag
        self._sent[tag] = _Sent(answer, loop.time(), len(message.body), key)
        return answer

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
        sent.answer.set_exception(Unroutable(f"there is no queue {sent.queue}; declare it first", queue=sent.queue))
    elif not accepted:
        sent.answer.set_exception(Overloaded(f"queue {sent.queue} is full; try again later", queue=sent.queue))
    else:
        sent.answer.set_result(None)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the broker takes messages of at most {limit} bytes; send the payload by reference", limit=limit)
