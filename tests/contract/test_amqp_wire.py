"""Under the adapter: whatever a stream carries and whichever loop and transport carry it, messages
arrive.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pika
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.chassis.broker.amqp.broker import AmqpBroker
from services.chassis.broker.port import Delivery, Message
from services.local.backing.rabbitmq import RabbitMQ
from tests.contract.brokers import AtRabbit, Inbox, new_queue
from tests.contract.proxy import Proxy
from tests.fakes.eventually import eventually


@pytest.fixture
async def rabbit(rabbitmq_server: RabbitMQ) -> AsyncIterator[AtRabbit]:
    place = AtRabbit(rabbitmq_server)
    yield place
    await place.close()


async def echo(broker: AmqpBroker, bodies: list[bytes]) -> list[bytes]:
    """Sends bodies to a queue, on from there to another, and returns what comes out."""
    there, back, inbox = new_queue(), new_queue(), Inbox()

    def send_on(delivery: Delivery) -> None:
        broker.post(back.name, delivery.message).add_done_callback(lambda _: delivery.ack())

    await broker.consume(back, inbox, prefetch=0, acks=False)
    await broker.consume(there, send_on, prefetch=4)
    await asyncio.gather(
        *(broker.publish(there.name, Message(body, {"n": "1"})) for body in bodies)
    )
    await inbox.holds(len(bodies))
    return inbox.bodies


# One byte, about one frame, several frames, and more than a socket takes at once.
BODIES = [
    b"",
    b"x",
    *(bytes(131_064 + more) for more in (-1, 0, 1)),
    bytes(300_000),
    bytes(range(256)) * 40_000,
]


async def test_bodies_of_all_sizes_go_there_and_back(rabbit: AtRabbit) -> None:
    broker = await rabbit.open()
    assert isinstance(broker, AmqpBroker)

    assert await echo(broker, BODIES) == BODIES


async def test_on_the_loop_that_services_run_on(rabbitmq_server: RabbitMQ) -> None:
    async def converse() -> tuple[list[bytes], list[bytes], list[str]]:
        proxy = Proxy(rabbitmq_server.port)
        await proxy.start()
        lost: list[str] = []
        broker = AmqpBroker(_by_way_of(proxy.port, rabbitmq_server), name="uvloop")
        broker.on_lost(lost.append)
        await broker.start()
        before = await echo(broker, BODIES)
        proxy.cut()
        await eventually(lambda: len(lost) == 2)
        after = await echo(broker, BODIES)
        await broker.close()
        await proxy.close()
        return before, after, lost

    def on_uvloop() -> tuple[list[bytes], list[bytes], list[str]]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(converse())

    before, after, lost = await asyncio.to_thread(on_uvloop)

    assert before == after == BODIES
    assert len(lost) == 2


async def test_a_message_of_a_stranger_is_read_as_far_as_the_port_goes(
    rabbit: AtRabbit, rabbitmq_server: RabbitMQ
) -> None:
    broker, queue, inbox = await rabbit.open(), new_queue(), Inbox()
    await broker.consume(queue, inbox, prefetch=1)
    headers = {"count": 3, "names": ["a", "b"], "text": "yes", "nothing": None}
    properties = pika.BasicProperties(
        "text/plain", "gzip", headers, 2, 9, "7", "there", timestamp=1, type="greeting"
    )

    def publish() -> None:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
            connection.channel().basic_publish("", queue.name, b"hello", properties)

    await asyncio.to_thread(publish)
    await broker.publish(queue.name, Message(b"usual", {"a": "b"}))

    first, second = await inbox.holds(2)
    assert first.message.body == b"hello"
    assert first.message.headers["text"] == "yes"
    assert first.message.headers["count"] == "3"
    assert (first.message.correlation_id, first.message.reply_to) == ("7", "there")
    assert second.message == Message(b"usual", {"a": "b"})


async def test_a_stream_that_makes_no_sense_is_given_up_and_opened_anew(rabbit: AtRabbit) -> None:
    broker, queue, inbox, lost = await rabbit.open(), new_queue(), Inbox(), list[str]()
    broker.on_lost(lost.append)
    await broker.consume(queue, inbox, prefetch=1)

    # A body that no header announced, on the first channel, and on none.
    rabbit.network_of(broker).inject(
        b"\x03\x00\x01\x00\x00\x00\x01x\xce" + b"\x01\x00\x00\x00\x00\x00\x04junk\x00"
    )

    await eventually(lambda: len(lost) == 2)
    await broker.publish(queue.name, Message(b"x"))
    await inbox.holds(1)


async def test_over_tls(rabbitmq_server: RabbitMQ, tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = Proxy(rabbitmq_server.port, context)
    await proxy.start()
    options = quote(str({"ca_certs": str(certificate)}))
    url = (
        _by_way_of(proxy.port, rabbitmq_server).replace("amqp:", "amqps:")
        + f"?ssl_options={options}"
    )
    broker = AmqpBroker(url, name="tls")
    await broker.start()

    assert await echo(broker, BODIES) == BODIES

    await broker.close()
    await proxy.close()


async def test_a_server_of_unknown_authority_is_told_nothing(
    rabbitmq_server: RabbitMQ, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    proxy = Proxy(rabbitmq_server.port, context)
    await proxy.start()
    broker = AmqpBroker(
        _by_way_of(proxy.port, rabbitmq_server).replace("amqp:", "amqps:"), name="tls"
    )
    await broker.start()

    await eventually(lambda: "cannot be used" in broker.problem)

    await broker.close()
    await proxy.close()


def _by_way_of(port: int, server: RabbitMQ) -> str:
    parts = urlsplit(server.url)
    return parts._replace(netloc=parts.netloc.replace(f":{server.port}", f":{port}")).geturl()


def _certificate(folder: Path) -> Path:
    """A key and its self-signed certificate for 127.0.0.1, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "broker.pem"
    path.write_bytes(
        key.private_bytes(pem, private, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path
