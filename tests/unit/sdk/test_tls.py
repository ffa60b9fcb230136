"""Over TLS a client trusts the authority it was given and no other, over HTTP and gRPC."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stellwerk.client import connect, errors
from stellwerk.router.v1.router_service_pb2 import ListRuntimesResponse, Runtime


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stellwerk test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return certificate_path, key_path


class _Edge(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"runtimes": [{"name": "runtimes/a"}]}')


@contextmanager
def https(certificate_path: Path, key_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Edge)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_path, key_path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpcs(certificate_path: Path, key_path: Path) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, context: ListRuntimesResponse(runtimes=[Runtime(name="runtimes/a")]),
        response_serializer=ListRuntimesResponse.SerializeToString,
    )
    name = "stellwerk.router.v1.RouterService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"ListRuntimes": handler}),)
    )
    pair = (key_path.read_bytes(), certificate_path.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"grpcs://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("serve", [https, grpcs], ids=["https", "grpcs"])
def test_only_the_authority_that_was_given_is_trusted(serve: object, tmp_path: Path) -> None:
    ours, foreign = certificate(tmp_path / "ours"), certificate(tmp_path / "foreign")

    with serve(*ours) as url:  # type: ignore[operator]
        with connect(url, "t", ca=ours[0]) as client:
            assert [runtime.name for runtime in client.runtimes()] == ["runtimes/a"]
        for ca in (foreign[0], None):
            with connect(url, "t", ca=ca, timeout=5) as client, pytest.raises(errors.Unavailable):
                client.runtimes()
