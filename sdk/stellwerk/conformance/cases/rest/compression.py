"""Compressed bodies over REST, as tritonclient sends and wants them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

from stellwerk.conformance.cases.case import Area, Basis, Cases, Check
from stellwerk.conformance.expect import NotApplicable, client_error, equal, that
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import JSON, model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed

CASES = Cases(
    Area.COMPRESSION, Transport.REST, "tritonclient.http infer(request_compression_algorithm=…)"
)
# Large enough that compression pays: a server need not compress a small body.
_TENSOR = Tensor("INPUT0", "INT32", (1000, 10), list(range(10_000)))
_BODY = json.dumps({"inputs": [_TENSOR.json()]}).encode()


def _request(name: str, pack: Callable[[bytes], bytes]) -> Check:
    def check(s: Subject) -> None:
        headers = {**JSON, "content-encoding": name}
        reply = s.http.post(model_path(s.echo("INT32"), "infer"), pack(_BODY), headers)
        echoed(binary.outputs_of(reply), _TENSOR, "OUTPUT0")

    return check


def _answer(name: str) -> Check:
    def check(s: Subject) -> None:
        headers = {**JSON, "accept-encoding": name}
        reply = s.http.post(model_path(s.echo("INT32"), "infer"), _BODY, headers)
        equal(reply.headers.get("content-encoding"), name, "content-encoding")
        echoed(binary.outputs_of(reply), _TENSOR, "OUTPUT0")

    return check


# "deflate" is the zlib format: RFC 9110, 8.4.1.2.
for _name, _pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
    CASES.add(
        f"{_name}_request",
        f"A request packed with {_name} is read",
        Basis.CONVENTION,
        _request(_name, _pack),
    )
    CASES.add(
        f"{_name}_answer",
        f"A large answer is packed with {_name} on demand",
        Basis.SENSIBLE,
        _answer(_name),
    )


@CASES.convention(
    "A packed request with binary data is read; the header counts the JSON before packing"
)
def _gzip_binary(s: Subject) -> None:
    if "binary_tensor_data" not in s.advertised:
        raise NotApplicable("the extension binary_tensor_data is not advertised")
    body, headers = binary.encode([_TENSOR], parameters={"binary_data_output": True})
    headers = {**headers, "content-encoding": "gzip", "accept-encoding": "gzip"}
    reply = s.http.post(model_path(s.echo("INT32"), "infer"), gzip.compress(body), headers)
    echoed(binary.outputs_of(reply), _TENSOR, "OUTPUT0")


@CASES.sensible("Without accept-encoding nothing is packed")
def _not_asked(s: Subject) -> None:
    reply = s.http.post(model_path(s.echo("INT32"), "infer"), _BODY, JSON)
    that("content-encoding" not in reply.headers, "no content-encoding", dict(reply.headers))


@CASES.sensible("A body that is not packed as it says is a client error")
def _broken(s: Subject) -> None:
    for body in (b"no gzip at all", gzip.compress(_BODY)[:-20]):
        headers = {**JSON, "content-encoding": "gzip"}
        client_error(s.http.post(model_path(s.echo("INT32"), "infer"), body, headers))


@CASES.sensible("A packing that the server does not know answers 415, 400 or 501")
def _unknown(s: Subject) -> None:
    headers = {**JSON, "content-encoding": "conformance"}
    reply = s.http.post(model_path(s.echo("INT32"), "infer"), _BODY, headers)
    that(reply.status in (415, 400, 501), "415, 400 or 501", reply.brief())
