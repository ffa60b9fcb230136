"""One AMQP channel: pika's, made awaitable, and past pika all that each message costs.

A channel neither reopens nor retries: once closed it says so to all who use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Any

from services.chassis.broker.amqp import frames as amqp
from services.chassis.broker.amqp.incoming import Incoming, OnConfirm, Unpack
from services.chassis.broker.port import Handler, Message
from services.chassis.broker.received import Handling, Received
from services.chassis.futures import settle
from stellwerk.wire.topology import QueueSpec

# A frame with an acknowledgement: kind, channel, the payload's size, method, tag, multiple, end.
_ACK = Struct(">BHIIQBB")


class ChannelGone(Exception):
    """The channel is closed; `code` is the broker's reply code, 0 if it gave no reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Channel:
    """An open channel. `closed` is done, with the ChannelGone to raise, once it is closed.

    `raw` is pika's channel; `unpack` reads message properties that only pika knows.
    """

    def __init__(self, raw: Any, incoming: Incoming, frame_max: int, unpack: Unpack) -> None:
        self._raw = raw
        self._reader = incoming.reader
        self._outgoing = incoming.outgoing
        self._frame_max = frame_max
        self._unpack = unpack
        self._number = int(raw.channel_number)
        self._unsettled = Unsettled(self._send_ack)
        self._leaving = False
        self._calls: set[asyncio.Future[Any]] = set()
        self.closed: asyncio.Future[ChannelGone] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """True while the channel can be used."""
        return bool(self._raw.is_open)

    async def declare_queue(self, spec: QueueSpec) -> None:
        """Declares a queue.

        Raises ChannelGone, with code 406 if the queue exists with other arguments and 405 if it
        belongs to another connection.
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
        """Declares a queue that is deleted with its consumer; returns the name the broker chose."""
        declared = await self._call(self._raw.queue_declare, "", exclusive=True, auto_delete=True)
        return str(declared.method.queue)

    async def inspect_queue(self, name: str) -> tuple[int, int]:
        """Returns the queue's messages and consumers; ChannelGone 404 if there is no such queue."""
        found = await self._call(self._raw.queue_declare, name, passive=True)
        return found.method.message_count, found.method.consumer_count

    async def declare_topics(self, exchange: str) -> None:
        """Declares a topic exchange."""
        await self._call(self._raw.exchange_declare, exchange, exchange_type="topic", durable=True)

    async def bind(self, queue: str, exchange: str, pattern: str) -> None:
        """Has the exchange put messages whose routing key matches the pattern into the queue."""
        await self._call(self._raw.queue_bind, queue, exchange, routing_key=pattern)

    async def consume(
        self, queue: str, handler: Handler, handling: Handling, *, prefetch: int, acks: bool = True
    ) -> None:
        """Starts deliveries to `handler`, to be settled unless `acks` is False.

        The channel closes when the broker ends them.
        """

        def deliver(tag: int, redelivered: bool, routing_key: str, message: Message) -> None:
            if not acks:
                handling.run(handler, Received(message, redelivered, routing_key, tag, None))
            elif self._leaving:
                self._settle(tag, False, True)
            else:
                self._unsettled.add(tag)
                received = Received(message, redelivered, routing_key, tag, self._settle)
                handling.run(handler, received)

        if acks and prefetch:
            await self._call(self._raw.basic_qos, prefetch_count=prefetch)
        self._raw.add_on_cancel_callback(lambda _: self.close())
        self._reader.take_deliveries(self._number, deliver, self._unpack)
        await self._call(self._raw.basic_consume, queue, _unexpected, auto_ack=not acks)

    async def leave(self) -> None:
        """Ends deliveries; the channel closes once all of them are settled.

        Raises ChannelGone if it is closed before the broker has confirmed the end.
        """
        self._leaving = True
        for tag in list(self._raw.consumer_tags):
            await self._call(self._raw.basic_cancel, tag)
        self._close_when_settled()

    async def confirms(self, on_confirm: OnConfirm, on_return: Callable[[str], None]) -> None:
        """Has the broker confirm each message to `on_confirm`.

        A message that no queue takes is first given to `on_return`, by its mark.
        """
        self._raw.add_on_return_callback(
            lambda _, __, properties, ___: on_return(properties.app_id or "")
        )
        self._reader.take_confirms(self._number, on_confirm)
        await self._call(self._raw.confirm_delivery, _unexpected)

    def publish(
        self, exchange: str, routing_key: str, message: Message, *, mandatory: bool, mark: str
    ) -> None:
        """Sends without waiting. Raises ChannelGone if the channel is closed.

        `mark` comes back with the message if no queue takes it.
        """
        if not self._raw.is_open:
            raise ChannelGone(0, "the channel is closed")
        self._outgoing.publish(
            self._number,
            exchange,
            routing_key,
            message,
            mandatory=mandatory,
            mark=mark,
            frame_max=self._frame_max,
        )

    def close(self) -> None:
        """Closes the channel. Unsettled messages return to their queue."""
        self._unsettled.flush()
        if self._raw.is_open:
            self._raw.close()

    def _settle(self, tag: int, ack: bool, requeue: bool) -> None:
        if ack:
            self._unsettled.acknowledge(tag)
        else:
            self._unsettled.remove(tag)
            if self._raw.is_open:
                self._raw.basic_reject(tag, requeue=requeue)
        if self._leaving:
            self._close_when_settled()

    def _close_when_settled(self) -> None:
        self._unsettled.flush()
        if not self._unsettled:
            self.close()

    def _send_ack(self, tag: int, multiple: bool) -> None:
        if self._raw.is_open:
            self._outgoing.write(pack_ack(self._number, tag, multiple=multiple))

    async def _call(self, send: Callable[..., object], *arguments: object, **named: object) -> Any:
        """Sends with a `callback` and returns the broker's answer. Raises ChannelGone."""
        if not self._raw.is_open:
            raise ChannelGone(0, "the channel is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)
        try:
            send(*arguments, **named, callback=partial(settle, answer))
            return await answer
        finally:
            self._calls.discard(answer)

    def _on_closed(self, _: object, reason: Any) -> None:
        self._reader.forget(self._number)
        gone = ChannelGone(
            getattr(reason, "reply_code", 0), getattr(reason, "reply_text", type(reason).__name__)
        )
        for answer in self._calls:
            settle(answer, gone)
        if not self.closed.done():
            self.closed.set_result(gone)


def pack_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Packs the acknowledgement of a delivery or, with `multiple`, of all up to it."""
    return _ACK.pack(amqp.METHOD, channel, 13, amqp.ACK, tag, multiple,
                     amqp.END[0])  # fmt: skip


class Unsettled:
    """Delivery tags of one channel that are not settled yet, and the acknowledgements to send.

    Acknowledgements of one turn of the loop leave together: one frame for all from the oldest
    unsettled tag on, and one for each that overtook an older one. `send` gets a tag and whether it
    stands for all up to it.
    """

    def __init__(self, send: Callable[[int, bool], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        # In the order of arrival, which is the order of the tags.
        self._tags: dict[int, None] = {}
        self._acknowledged: set[int] = set()

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, tag: int) -> None:
        """Adds a delivery."""
        self._tags[tag] = None

    def remove(self, tag: int) -> None:
        """Removes a delivery that was rejected."""
        self._tags.pop(tag, None)

    def acknowledge(self, tag: int) -> None:
        """Sends an acknowledgement at the end of the loop's next turn, or with `flush`."""
        if not self._acknowledged:
            self._loop.call_soon(self.flush)
        self._acknowledged.add(tag)

    def flush(self) -> None:
        """Sends the gathered acknowledgements."""
        done = self._acknowledged
        self._acknowledged = set()
        if not done:
            return
        oldest = last = 0
        for tag in self._tags:
            if tag not in done:
                break
            oldest = oldest or tag
            last = tag
        if last:
            self._send(last, last != oldest)
        for tag in sorted(done):
            if tag > last:
                self._send(tag, False)
            del self._tags[tag]


def _unexpected(*_: object) -> None:
    """Raises: pika would call this with messages, all of which the stream's reader takes first."""
    raise AssertionError("a message reached pika")
