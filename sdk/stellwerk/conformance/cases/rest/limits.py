"""Sizes that lie and sizes that are large, over REST."""

from __future__ import annotations

from typing import Any

from stellwerk.conformance.cases.case import Area, Basis, Cases
from stellwerk.conformance.expect import client_error, equal, no_server_error, that
from stellwerk.conformance.server.rest import JSON, model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed

CASES = Cases(Area.LIMITS, Transport.REST, hostile=True)
_SHAPE = "inference_rest.md, Request Input (each dimension is an unsigned 64-bit integer)"


def _shape(name: str, title: str, shape: list[Any]) -> None:
    def check(s: Subject) -> None:
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": shape, "data": [1.0, 2.0]}
        client_error(s.post(s.echo(), [tensor]))

    CASES.add(name, f"{title} is a client error", Basis.SENSIBLE, check, _SHAPE)


_shape("overflow_to_zero", "A shape whose product overflows to 0", [2**32, 2**32])
_shape("overflow_to_count", "A shape whose product overflows to what was sent", [2**63 + 1, 2])
_shape("huge", "A shape of a trillion elements", [10**6, 10**6])
_shape("beyond_64_bits", "A dimension beyond 64 bits", [2**70, 1])
_shape("sixty_five_dimensions", "A shape of 65 dimensions", [1] * 64 + [2])
_shape("ten_thousand_dimensions", "A shape of 10,000 dimensions", [1] * 9_999 + [2])


@CASES.sensible("A hundred thousand nested lists are a client error")
def _nested_lists(s: Subject) -> None:
    data = b"[" * 100_000 + b"1" + b"]" * 100_000
    body = b'{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":' + data + b"}]}"
    client_error(s.http.post(model_path(s.echo(), "infer"), body, JSON))


@CASES.sensible("A number of 100,000 digits is taken or refused, never the server's failure")
def _long_number(s: Subject) -> None:
    body = (
        b'{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":['
        + b"1" * 100_000
        + b"]}]}"
    )
    no_server_error(s.http.post(model_path(s.echo(), "infer"), body, JSON))


@CASES.sensible("A thousand inputs that the model does not take are a client error")
def _many_inputs(s: Subject) -> None:
    tensors = [
        {"name": f"X{n}", "datatype": "FP32", "shape": [1, 1], "data": [1.0]} for n in range(1000)
    ]
    client_error(s.post(s.echo(), tensors))


_shape("negative_product", "Two negative dimensions whose product fits", [-1, -2])


@CASES.sensible("A model's name with escapes, a path in it, or 10,000 letters is a client error")
def _hostile_names(s: Subject) -> None:
    for name in ("..%2f..%2fetc", "%00", "a%20b", "x" * 10_000, "%ff%fe"):
        client_error(s.http.get(f"/v2/models/{name}"))


@CASES.sensible("A tensor of a quarter of a million numbers is echoed")
def _large_tensor(s: Subject) -> None:
    count = 250_000
    tensor = Tensor("INPUT0", "INT32", (500, 500), list(range(count)))
    found = s.infer(s.echo("INT32"), [tensor])["OUTPUT0"]
    that(
        list(found.items) == list(tensor.items),
        "what was sent",
        f"{len(found.items)} other elements",
    )


@CASES.sensible("A BYTES element of a mebibyte is echoed")
def _long_text(s: Subject) -> None:
    tensor = Tensor("INPUT0", "BYTES", (1, 1), [b"stellwerk" * 116_509])
    echoed(s.infer(s.echo("BYTES"), [tensor]), tensor, "OUTPUT0")


@CASES.sensible("A batch of 10,000 rows is echoed in order")
def _many_rows(s: Subject) -> None:
    tensor = Tensor("INPUT0", "INT32", (10_000, 1), list(range(10_000)))
    found = s.infer(s.echo("INT32"), [tensor])["OUTPUT0"]
    equal(
        (tuple(found.shape), list(found.items) == list(tensor.items)),
        ((10_000, 1), True),
        "shape and equality",
    )
