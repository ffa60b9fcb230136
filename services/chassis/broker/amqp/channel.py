"""A channel of pika's made awaitable; what every message costs passes it by, on the channel's own
frames.

Nothing here reopens or retries: a closed channel says so, once, to whoever uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from services.chassis.broker.amqp import frames as amqp_frames
from services.chassis.broker.amqp.acks import Acks
from services.chassis.broker.amqp.frame_reader import OnConfirm, OnDelivery, Unpack
from services.chassis.broker.amqp.stream import Stream
from services.chassis.broker.port import Message
from stellwerk.wire.topology import QueueSpec


class ChannelGone(Exception):
    """The channel is closed; `code` is the broker's reply code, 0 if it did not say why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Channel:
    """An open channel. `closed` is done, with the ChannelGone to raise, when it is no more.

    `raw` is pika's; `unpack` reads properties that only pika knows.
    """

    def __init__(self, raw: Any, stream: Stream, frame_max: int, unpack: Unpack) -> None:
        self._raw, self._stream, self._frame_max, self._unpack = raw, stream, frame_max, unpack
        self._number = int(raw.channel_number)
        self._acks = Acks(self._send_ack)
        self._cancelled = False
        self._calls: set[asyncio.Future[Any]] = set()
        self.closed: asyncio.Future[ChannelGone] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        return bool(self._raw.is_open)

    async def declare_queue(self, spec: QueueSpec) -> None:
        """Declares a queue; ChannelGone 406 if it exists with other arguments, 405 if it is another
        connection's.
        """
        arguments: dict[str, object] = {}
        if spec.max_length:
            arguments |= {"x-max-length": spec.max_length, "x-overflow": "reject-publish"}
        if spec.expires_ms:
            arguments["x-expires"] = spec.expires_ms
        await self._call(
            self._raw.queue_declare,
            spec.name,
            durable=spec.durable,
            exclusive=spec.exclusive,
            arguments=arguments,
        )

    async def declare_own_queue(self) -> str:
        """A queue that goes away with its consumer, under a name that the broker chooses."""
        declared = await self._call(self._raw.queue_declare, "", exclusive=True, auto_delete=True)
        return str(declared.method.queue)

    async def inspect_queue(self, name: str) -> tuple[int, int]:
        """Messages and consumers; ChannelGone 404 if there is no such queue."""
        found = await self._call(self._raw.queue_declare, name, passive=True)
        return found.method.message_count, found.method.consumer_count

    async def declare_topics(self, exchange: str) -> None:
        await self._call(self._raw.exchange_declare, exchange, exchange_type="topic", durable=True)

    async def bind(self, queue: str, exchange: str, pattern: str) -> None:
        await self._call(self._raw.queue_bind, queue, exchange, routing_key=pattern)

    async def consume(
        self, queue: str, on_delivery: OnDelivery, *, prefetch: int, acks: bool = True
    ) -> None:
        """Starts deliveries, to be settled unless without `acks`. When the broker ends them, the
        channel closes.
        """

        def deliver(tag: int, redelivered: bool, routing_key: str, message: Message) -> None:
            if acks and self._cancelled:
                self.reject(tag, requeue=True)
                return
            if acks:
                self._acks.hold(tag)
            on_delivery(tag, redelivered, routing_key, message)

        if acks and prefetch:
            await self._call(self._raw.basic_qos, prefetch_count=prefetch)
        self._raw.add_on_cancel_callback(lambda _: self.close())
        self._stream.inlet.deliver(self._number, deliver, self._unpack)
        await self._call(self._raw.basic_consume, queue, _unexpected, auto_ack=not acks)

    async def cancel_consumers(self) -> None:
        """Ends deliveries; the channel stays for what is in hand."""
        self._cancelled = True
        for tag in list(self._raw.consumer_tags):
            await self._call(self._raw.basic_cancel, tag)

    async def confirms(self, on_confirm: OnConfirm, on_return: Callable[[str], None]) -> None:
        """Switches confirms on: on_confirm(tag, multiple, accepted); on_return(mark) precedes its
        confirm.
        """

        self._raw.add_on_return_callback(
            lambda _, __, properties, ___: on_return(properties.app_id or "")
        )
        self._stream.inlet.confirm(self._number, on_confirm)
        await self._call(self._raw.confirm_delivery, _unexpected)

    def publish(
        self, exchange: str, routing_key: str, message: Message, *, mandatory: bool, mark: str
    ) -> None:
        """Sends without waiting. `mark` comes back with the message if nothing takes it. Raises
        ChannelGone.
        """
        if not self._raw.is_open:
            raise ChannelGone(0, "the channel is closed")
        pieces = amqp_frames.publish(
            self._number,
            exchange,
            routing_key,
            message,
            mandatory=mandatory,
            mark=mark,
            frame_max=self._frame_max,
        )
        if isinstance(pieces, bytes):
            self._stream.write(pieces)
        else:
            self._stream.write_all(pieces)

    def ack(self, tag: int) -> None:
        """Acknowledges, together with what else is acknowledged in this turn."""
        self._acks.acknowledge(tag)

    def reject(self, tag: int, *, requeue: bool) -> None:
        self._acks.release(tag)
        if self._raw.is_open:
            self._raw.basic_reject(tag, requeue=requeue)

    def close_when_settled(self) -> None:
        """Closes unless a delivery is still in hand."""
        self._acks.flush()
        if not self._acks:
            self.close()

    def close(self) -> None:
        """Closes. What is in hand goes back to its queue."""
        self._acks.flush()
        if self._raw.is_open:
            self._raw.close()

    def _send_ack(self, tag: int, multiple: bool) -> None:
        if self._raw.is_open:
            self._stream.write(amqp_frames.ack(self._number, tag, multiple=multiple))

    async def _call(self, send: Callable[..., object], *arguments: object, **named: object) -> Any:
        """Sends with a `callback` and waits for it. Raises ChannelGone."""
        if not self._raw.is_open:
            raise ChannelGone(0, "the channel is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)
        try:
            send(*arguments, **named, callback=partial(fulfil, answer))
            return await answer
        finally:
            self._calls.discard(answer)

    def _on_closed(self, _: object, reason: Any) -> None:
        self._stream.inlet.forget(self._number)
        gone = ChannelGone(
            getattr(reason, "reply_code", 0), getattr(reason, "reply_text", type(reason).__name__)
        )
        for answer in self._calls:
            if not answer.done():
                answer.set_exception(gone)
        if not self.closed.done():
            self.closed.set_result(gone)


def fulfil(future: asyncio.Future[Any], result: object) -> None:
    """Gives the future its result if it still waits for one."""
    if not future.done():
        future.set_result(result)


def _unexpected(*_: object) -> None:
    """What pika would call with a delivery or a confirm, all of which the inlet takes before pika
    sees them.
    """
    raise AssertionError("a message went by way of pika")
