"""Wrong requests over gRPC: the code says that the caller erred, and nothing breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from stellwerk.conformance.cases.case import Area, Basis, Cases, Check
from stellwerk.conformance.cases.rest.infer import FIRST, SECOND
from stellwerk.conformance.expect import code, that
from stellwerk.conformance.server.rpc import infer_request, parameter
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample
from stellwerk.inference.v2 import grpc_service_pb2 as pb

CASES = Cases(Area.GRPC_ERRORS, Transport.GRPC, "inference_grpc.md, Inference (ModelInferRequest)")
LIMITS = Cases(Area.LIMITS, Transport.GRPC, hostile=True)
PARAMETERS = Cases(
    Area.PARAMETERS, Transport.GRPC, "extension_schedule_policy.md", "schedule_policy"
)
_INVALID, _NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
_ROW = Tensor("INPUT0", "FP32", (1, 4), [1.0, 2.0, 3.0, 4.0])
_NOBODY = "conformance_nobody"
Change = Callable[[Any], None]


def _changed(
    cases: Cases, basis: Basis, name: str, title: str, change: Change, *, typed: bool = False
) -> None:
    """Checks that an echo of one row, with its message changed, is INVALID_ARGUMENT."""

    def check(s: Subject) -> None:
        request = infer_request(s.echo(), [_ROW], typed=typed)
        change(request)
        code(s.grpc.refusal("ModelInfer", request), _INVALID)

    cases.add(name, f"{title} is INVALID_ARGUMENT", basis, check)


def _wrong(name: str, title: str, change: Change, *, typed: bool = False) -> None:
    _changed(CASES, Basis.SENSIBLE, name, title, change, typed=typed)


def _set(path: str, value: Any) -> Change:
    """Sets a field of the first input."""

    def change(request: Any) -> None:
        setattr(request.inputs[0], path, value)

    return change


def _shape(*sizes: int) -> Change:
    def change(request: Any) -> None:
        request.inputs[0].shape[:] = sizes

    return change


def _raw(*entries: bytes) -> Change:
    def change(request: Any) -> None:
        request.raw_input_contents[:] = entries

    return change


def _contents(**fields: list[Any]) -> Change:
    def change(request: Any) -> None:
        request.inputs[0].contents.CopyFrom(pb.InferTensorContents(**fields))

    return change


def _output(name: str) -> Change:
    def change(request: Any) -> None:
        request.outputs.add(name=name)

    return change


def _twice(request: Any) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


_wrong(
    "raw_and_typed", "Raw and typed contents at once", _contents(fp32_contents=[1.0, 2.0, 3.0, 4.0])
)
_wrong("raw_too_short", "A raw entry shorter than the shape says", _raw(b"123"))
_wrong("raw_too_long", "A raw entry longer than the shape says", _raw(_ROW.raw() + b"1234"))
_wrong("no_data", "An input with neither raw nor typed contents", _raw())
_wrong("raw_extra", "A raw entry too many", _raw(_ROW.raw(), _ROW.raw()))
_wrong(
    "typed_too_few",
    "Fewer typed elements than the shape says",
    _contents(fp32_contents=[1.0]),
    typed=True,
)
_wrong(
    "typed_too_many",
    "More typed elements than the shape says",
    _contents(fp32_contents=[1.0] * 5),
    typed=True,
)
_wrong(
    "typed_wrong_field",
    "Typed elements in another datatype's field",
    _contents(int_contents=[1, 2, 3, 4]),
    typed=True,
)
_wrong("unknown_datatype", "The datatype FLOAT", _set("datatype", "FLOAT"))
_wrong("wrong_datatype", "INT32 for an input of FP32", _set("datatype", "INT32"))
_wrong("no_datatype", "An input without a datatype", _set("datatype", ""))
_wrong("unknown_input", "An input that the model does not take", _set("name", "NOPE"))
_wrong("unknown_output", "An unknown requested output", _output("NOPE"))
_wrong("duplicate_input", "An input given twice", _twice)
_wrong("wrong_rank", "One dimension for an input of two", _shape(4))
_wrong("negative_shape", "A dimension of -1 in a request", _shape(-1, 4))
_changed(
    LIMITS,
    Basis.SENSIBLE,
    "negative_product",
    "Two negative dimensions whose product fits",
    _shape(-2, -2),
)
_changed(
    LIMITS,
    Basis.SENSIBLE,
    "overflow_to_zero",
    "A shape whose product overflows to 0",
    _shape(2**32, 2**32),
)
_changed(
    LIMITS, Basis.SENSIBLE, "overflow_to_count", "A shape whose product overflows to what was sent",
    _shape(2**62 + 1, 4),
)  # fmt: skip
_changed(LIMITS, Basis.SENSIBLE, "huge", "A shape of a trillion elements", _shape(10**6, 10**6))
_changed(
    LIMITS,
    Basis.SENSIBLE,
    "sixty_five_dimensions",
    "A shape of 65 dimensions",
    _shape(*[1] * 64, 4),
)


@CASES.sensible("A raw entry too few is INVALID_ARGUMENT")
def _raw_missing(s: Subject) -> None:
    request = infer_request(s.model("add_sub"), [FIRST, SECOND])
    del request.raw_input_contents[1:]
    code(s.grpc.refusal("ModelInfer", request), _INVALID)


@CASES.sensible("A missing input is INVALID_ARGUMENT")
def _missing_input(s: Subject) -> None:
    request = infer_request(s.model("add_sub"), [Tensor("INPUT0", "INT32", (1, 1), [1])])
    code(s.grpc.refusal("ModelInfer", request), _INVALID)


@CASES.sensible("A request without inputs is INVALID_ARGUMENT")
def _no_inputs(s: Subject) -> None:
    code(s.grpc.refusal("ModelInfer", infer_request(s.echo(), [])), _INVALID)


@CASES.sensible("An unknown model is NOT_FOUND")
def _unknown_model(s: Subject) -> None:
    code(s.grpc.refusal("ModelInfer", infer_request(_NOBODY, [_ROW])), _NOT_FOUND)


@CASES.sensible("An unknown version is NOT_FOUND")
def _unknown_version(s: Subject) -> None:
    code(
        s.grpc.refusal("ModelInfer", infer_request(s.echo(), [_ROW], model_version="999999")),
        _NOT_FOUND,
    )


@CASES.sensible("A version that is no number is NOT_FOUND or INVALID_ARGUMENT")
def _odd_version(s: Subject) -> None:
    refusal = s.grpc.refusal("ModelInfer", infer_request(s.echo(), [_ROW], model_version="abc"))
    code(refusal, _NOT_FOUND, _INVALID)


@CASES.sensible("No model's name is INVALID_ARGUMENT or NOT_FOUND")
def _no_name(s: Subject) -> None:
    code(s.grpc.refusal("ModelInfer", infer_request("", [_ROW])), _INVALID, _NOT_FOUND)


def _typed(name: str, datatype: str, value: int) -> Check:
    """Checks that a typed element beyond its datatype is refused though its field can hold it."""

    def check(s: Subject) -> None:
        request = infer_request(s.echo(datatype), [sample(datatype)], typed=True)
        contents = request.inputs[0].contents
        (contents.int_contents or contents.uint_contents)[0] = value
        code(s.grpc.refusal("ModelInfer", request), _INVALID)

    return check


for _datatype, _value in (("INT8", 300), ("INT16", 2**20), ("UINT8", 256), ("UINT16", 2**20)):
    CASES.add(
        f"overflow_{_datatype.lower()}",
        f"{_value} for {_datatype} is INVALID_ARGUMENT",
        Basis.SENSIBLE,
        _typed(_datatype, _datatype, _value),
    )


@CASES.sensible("Raw BYTES that end early, or announce more than there is, are INVALID_ARGUMENT")
def _broken_bytes(s: Subject) -> None:
    for raw in (
        b"\x05\x00\x00\x00abc",
        b"\x01\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x01\x00\x00\x00ab",
    ):
        request = infer_request(s.echo("BYTES"), [Tensor("INPUT0", "BYTES", (1, 1), [b""])])
        request.raw_input_contents[0] = raw
        code(s.grpc.refusal("ModelInfer", request), _INVALID)


@CASES.sensible("A model's own error is told as an error, and the next request is served")
def _model_error(s: Subject) -> None:
    model = s.model("fails_on_13")
    refusal = s.grpc.refusal(
        "ModelInfer", infer_request(model, [Tensor("INPUT0", "INT64", (1, 1), [13])])
    )
    that(refusal is not None, "an error", "OK")
    good = Tensor("INPUT0", "INT64", (1, 2), [0, 12])
    echoed(s.call(model, [good]), good, "OUTPUT0")


@CASES.sensible("After wrong requests the same channel serves a right one")
def _afterwards(s: Subject) -> None:
    request = infer_request(s.echo(), [_ROW])
    request.raw_input_contents[0] = b"1"
    s.grpc.refusal("ModelInfer", request)
    echoed(s.call(s.echo(), [_ROW]), _ROW, "OUTPUT0")


@PARAMETERS.specified("priority and timeout are taken, as tritonclient sends them")
def _schedule(s: Subject) -> None:
    parameters = {"priority": pb.InferParameter(uint64_param=1), "timeout": parameter(5_000_000)}
    echoed(s.call(s.echo(), [_ROW], parameters=parameters), _ROW, "OUTPUT0")


@PARAMETERS.sensible("A priority or timeout that is no number is INVALID_ARGUMENT")
def _odd_schedule(s: Subject) -> None:
    for name in ("priority", "timeout"):
        request = infer_request(s.echo(), [_ROW], parameters={name: parameter("soon")})
        code(s.grpc.refusal("ModelInfer", request), _INVALID)
