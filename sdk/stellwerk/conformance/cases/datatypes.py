"""Every datatype there and back: JSON, binary data, raw and typed contents; empty, scalar and
unusual tensors.
"""

from __future__ import annotations

import math

from stellwerk.conformance.cases.case import Area, Basis, Case, Cases, Check
from stellwerk.conformance.expect import client_error, no_server_error, that
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import model_path
from stellwerk.conformance.server.rpc import infer_request, outputs_of
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import FIELDS, SAMPLES, Tensor, echoed, sample

_TYPES = "inference_rest.md, Tensor Data Types"
_GRPC = "inference_grpc.md, Tensor Data"
_REST = Cases(Area.DATATYPES, Transport.REST, _TYPES)
_BINARY = Cases(
    Area.DATATYPES,
    Transport.REST,
    "extension_binary_data.md, Binary Tensor Request",
    "binary_tensor_data",
)
_RPC = Cases(Area.DATATYPES, Transport.GRPC, _GRPC)


def all_cases() -> list[Case]:
    """Returns the cases of this module."""
    return [*_REST.all, *_BINARY.all, *_RPC.all]


def over_json(tensor: Tensor) -> Check:
    """Checks that the tensor comes back from an echo as JSON."""

    def check(s: Subject) -> None:
        echoed(s.infer(s.echo(tensor.datatype), [tensor]), tensor, "OUTPUT0")

    return check


def over_binary(tensor: Tensor) -> Check:
    """Checks that the tensor comes back from an echo as binary data."""

    def check(s: Subject) -> None:
        body, headers = binary.encode([tensor], parameters={"binary_data_output": True})
        reply = s.http.post(model_path(s.echo(tensor.datatype), "infer"), body, headers)
        echoed(binary.outputs_of(reply), tensor, "OUTPUT0")

    return check


def over_grpc(tensor: Tensor, typed: bool) -> Check:
    """Checks that the tensor comes back from an echo over gRPC."""

    def check(s: Subject) -> None:
        echoed(s.call(s.echo(tensor.datatype), [tensor], typed=typed), tensor, "OUTPUT0")

    return check


for _datatype in SAMPLES:
    _name, _sample = _datatype.lower(), sample(_datatype)
    if _datatype in FIELDS:
        _REST.add(f"{_name}_json", f"{_datatype} as JSON", Basis.SPECIFIED, over_json(_sample))
        _RPC.add(
            f"{_name}_typed",
            f"{_datatype} as typed contents",
            Basis.SPECIFIED,
            over_grpc(_sample, True),
        )
    # BF16 stands in no table of the protocol; tritonclient and Triton send it.
    _basis, _place = (
        (Basis.CONVENTION, "tritonclient") if _datatype == "BF16" else (Basis.SPECIFIED, "")
    )
    _BINARY.add(
        f"{_name}_binary", f"{_datatype} as binary data", _basis, over_binary(_sample), _place
    )
    _RPC.add(
        f"{_name}_raw", f"{_datatype} as raw contents", _basis, over_grpc(_sample, False), _place
    )

for _shape in ((0, 3), (2, 0)):
    _name, _empty = "x".join(map(str, _shape)), Tensor("INPUT0", "FP32", _shape, [])
    _title = f"A tensor of shape {list(_shape)}, which holds nothing, is echoed"
    _REST.add(f"empty_{_name}_json", _title, Basis.SENSIBLE, over_json(_empty))
    _RPC.add(f"empty_{_name}_raw", _title, Basis.SENSIBLE, over_grpc(_empty, False))
_EMPTY_TEXTS = Tensor("INPUT0", "BYTES", (0, 1), [])
_RPC.add(
    "empty_bytes_raw",
    "A BYTES tensor of no elements is echoed",
    Basis.SENSIBLE,
    over_grpc(_EMPTY_TEXTS, False),
)


@_REST.sensible("A tensor without dimensions is echoed")
def _scalar_json(s: Subject) -> None:
    tensor = Tensor("INPUT0", "FP32", (), [1.5])
    echoed(s.infer(s.model("scalar"), [tensor]), tensor, "OUTPUT0")


@_RPC.sensible("A tensor without dimensions is echoed")
def _scalar_raw(s: Subject) -> None:
    tensor = Tensor("INPUT0", "FP32", (), [1.5])
    echoed(s.call(s.model("scalar"), [tensor]), tensor, "OUTPUT0")


@_REST.specified(
    "Several datatypes travel in one request", "inference_rest.md, Inference Request Examples"
)
def _mixed_json(s: Subject) -> None:
    numbers, texts = mixed()
    found = s.infer(s.model("mixed"), [numbers, texts])
    echoed(found, numbers, "NUMBERS_OUT")
    echoed(found, texts, "TEXTS_OUT")


@_RPC.specified("Several datatypes travel in one request, raw and typed")
def _mixed(s: Subject) -> None:
    numbers, texts = mixed()
    for typed in (False, True):
        found = s.call(s.model("mixed"), [numbers, texts], typed=typed)
        echoed(found, numbers, "NUMBERS_OUT")
        echoed(found, texts, "TEXTS_OUT")


@_RPC.sensible("NaN and the infinities are echoed", "IEEE 754")
def _not_a_number_raw(s: Subject) -> None:
    for datatype in ("FP16", "FP32", "FP64"):
        tensor = Tensor("INPUT0", datatype, (1, 3), [math.nan, math.inf, -math.inf])
        echoed(s.call(s.echo(datatype), [tensor]), tensor, "OUTPUT0")


@_BINARY.sensible("NaN and the infinities as JSON outputs are no failure of the server")
def _not_a_number_as_json(s: Subject) -> None:
    body, headers = binary.encode(
        [Tensor("INPUT0", "FP32", (1, 3), [math.nan, math.inf, -math.inf])]
    )
    reply = s.http.post(model_path(s.echo(), "infer"), body, headers)
    no_server_error(reply)
    reply.json()


@_RPC.sensible("BYTES that are no text are echoed, or refused, never altered")
def _odd_bytes_raw(s: Subject) -> None:
    tensor = Tensor("INPUT0", "BYTES", (1, 3), [bytes(range(256)), b"\xff\xfe\x00", b"\0"])
    model = s.echo("BYTES")
    if s.grpc.refusal("ModelInfer", infer_request(model, [tensor])) is None:
        echoed(s.call(model, [tensor]), tensor, "OUTPUT0")


@_BINARY.sensible("BYTES that are no text are echoed, or refused, never altered")
def _odd_bytes_binary(s: Subject) -> None:
    tensor = Tensor("INPUT0", "BYTES", (1, 3), [bytes(range(256)), b"\xff\xfe\x00", b"\0"])
    body, headers = binary.encode([tensor], parameters={"binary_data_output": True})
    reply = s.http.post(model_path(s.echo("BYTES"), "infer"), body, headers)
    if reply.status == 200:
        echoed(binary.outputs_of(reply), tensor, "OUTPUT0")
    else:
        client_error(reply)


@_REST.sensible("FP16 as JSON, which the protocol calls problematic, is read right or refused")
def _fp16_json(s: Subject) -> None:
    tensor = Tensor("INPUT0", "FP16", (1, 2), [1.5, -2.0])
    reply = s.post(s.echo("FP16"), [tensor])
    no_server_error(reply)
    if reply.status == 200:
        echoed(binary.outputs_of(reply), tensor, "OUTPUT0")


@_RPC.sensible("A raw BOOL is 0 or 1")
def _bool_is_a_byte(s: Subject) -> None:
    response = s.grpc.call("ModelInfer", infer_request(s.echo("BOOL"), [sample("BOOL")]))
    if response.raw_output_contents:
        that(
            set(response.raw_output_contents[0]) <= {0, 1},
            "bytes of 0 and 1",
            response.raw_output_contents[0],
        )
    echoed(outputs_of(response), sample("BOOL"), "OUTPUT0")


@_RPC.sensible(
    "A tensor of 8 MiB, more than gRPC's default of 4, is echoed", "tritonclient sets no limit"
)
def _large_raw(s: Subject) -> None:
    tensor = Tensor("INPUT0", "FP32", (1024, 2048), [0.5] * (1024 * 2048))
    response = s.grpc.call("ModelInfer", infer_request(s.echo(), [tensor]))
    found = outputs_of(response)["OUTPUT0"]
    that(
        list(found.items) == list(tensor.items),
        "what was sent",
        f"{len(found.items)} other elements",
    )


def mixed() -> tuple[Tensor, Tensor]:
    """Returns the inputs of the model `mixed`."""
    numbers = Tensor("NUMBERS", "FP32", (2, 2), [1.0, 2.5, -3.0, 4.0])
    return numbers, Tensor("TEXTS", "BYTES", (2, 1), [b"eins", "zwei€".encode()])
