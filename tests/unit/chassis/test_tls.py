"""Mutual TLS is a switch: with it on, only peers of the same authority are spoken to."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.config import ServiceSettings
from services.chassis.lifecycle import probe
from services.chassis.rpc import transport
from tests.fakes.process import standalone

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.subject, self.key.public_key(), authority=True)
        self.path = folder / f"{name}-ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(minutes=5))
            .not_valid_after(NOW + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def settings(self, service: str, ca: Path | None = None) -> ServiceSettings:
        """Settings of a service with a certificate of this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
        certificate = self._signed(subject, key.public_key(), authority=False)
        key_path, certificate_path = (
            self.folder / f"{self.name}-{service}.key",
            self.folder / f"{self.name}-{service}.pem",
        )
        private = serialization.PrivateFormat.PKCS8
        key_path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        )
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return ServiceSettings(
            log_level="error",
            drain_seconds=1,
            tls_ca=ca or self.path,
            tls_key=key_path,
            tls_certificate=certificate_path,
        )


async def health(channel: grpc.aio.Channel) -> int:
    async with channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="liveness"), timeout=3
        )
    return int(answer.status)


async def test_only_a_peer_of_the_same_authority_is_answered(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    async with standalone("router", lambda _: None, ours.settings("router")) as served:
        assert await health(transport.open_channel(ours.settings("runtime"), served.address)) == 1

        for stranger in (
            ServiceSettings(),
            theirs.settings("runtime", ca=ours.path),
            theirs.settings("runtime"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health(transport.open_channel(stranger, served.address))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_probe_speaks_tls(tmp_path: Path) -> None:
    import asyncio

    ours = Authority(tmp_path, "ours")
    settings = ours.settings("router")
    async with standalone("router", lambda _: None, settings) as served:
        paths = [str(settings.tls_ca), str(settings.tls_certificate), str(settings.tls_key)]
        code = await asyncio.to_thread(probe.main, [served.address, "liveness", "--tls", *paths])
        assert code == 0
        assert await asyncio.to_thread(probe.main, [served.address, "liveness"]) == 1
