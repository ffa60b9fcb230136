"""The binary tensor data extension: which outputs come how, and headers and sizes that do not
fit.
"""

from __future__ import annotations

import json

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.cases.datatypes import mixed
from stellwerk.conformance.expect import client_error, equal, that
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import Reply, model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed

PLACE = "extension_binary_data.md"
CASES = Cases(Area.BINARY, Transport.REST, f"{PLACE}, Binary Tensor Request", "binary_tensor_data")
_RAW = f"{PLACE}, Raw Binary Request"
_ROW = Tensor("INPUT0", "FP32", (1, 3), [1.0, -2.5, 3.0])
_FIRST = Tensor("INPUT0", "INT32", (1, 2), [1, 2])
_SECOND = Tensor("INPUT1", "INT32", (1, 2), [10, 20])
_OCTETS = "application/octet-stream"


def _ask(s: Subject, key: str, body: bytes, headers: dict[str, str]) -> Reply:
    return s.http.post(model_path(s.model(key), "infer"), body, headers)


@CASES.specified("A binary input without a wish for outputs is answered as JSON")
def _binary_in_json_out(s: Subject) -> None:
    reply = _ask(s, "echo_fp32", *binary.encode([_ROW]))
    echoed(binary.outputs_of(reply), _ROW, "OUTPUT0")
    that(binary.HEADER not in reply.headers, f"no {binary.HEADER} header", reply.brief())


@CASES.specified("A JSON input with binary_data_output is answered in binary")
def _json_in_binary_out(s: Subject) -> None:
    reply = s.post(s.echo(), [_ROW], parameters={"binary_data_output": True})
    found = binary.outputs_of(reply)
    echoed(found, _ROW, "OUTPUT0")
    equal(found["OUTPUT0"].parameters.get("binary_data_size"), 12, "binary_data_size")


@CASES.specified(
    "A binary answer carries the header's length, and octet-stream as its content type"
)
def _headers(s: Subject) -> None:
    reply = s.post(
        s.echo(), [_ROW], outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}]
    )
    that(
        reply.headers.get(binary.HEADER, "").isdigit(),
        f"a number in {binary.HEADER}",
        dict(reply.headers),
    )
    kind = reply.headers.get("content-type", "")
    that(kind.split(";")[0] == _OCTETS, _OCTETS, kind)
    echoed(binary.outputs_of(reply), _ROW, "OUTPUT0")


@CASES.specified("binary_data on one output makes that one binary; the other stays JSON")
def _one_binary_output(s: Subject) -> None:
    outputs = [{"name": "OUTPUT0"}, {"name": "OUTPUT1", "parameters": {"binary_data": True}}]
    reply = s.post(s.model("add_sub"), [_FIRST, _SECOND], outputs=outputs)
    found = binary.outputs_of(reply)
    equal(
        [list(found[name].items) for name in ("OUTPUT0", "OUTPUT1")],
        [[11, 22], [-9, -18]],
        "outputs",
    )
    sizes = {name: tensor.parameters.get("binary_data_size") for name, tensor in found.items()}
    equal(sizes, {"OUTPUT0": None, "OUTPUT1": 8}, "binary_data_size")


@CASES.specified("binary_data on an output overrides binary_data_output")
def _output_overrides(s: Subject) -> None:
    outputs = [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, {"name": "OUTPUT1"}]
    wish = {"binary_data_output": True}
    found = binary.outputs_of(
        s.post(s.model("add_sub"), [_FIRST, _SECOND], outputs=outputs, parameters=wish)
    )
    sizes = {name: tensor.parameters.get("binary_data_size") for name, tensor in found.items()}
    equal(sizes, {"OUTPUT0": None, "OUTPUT1": 8}, "binary_data_size")


@CASES.specified("Binary and JSON inputs mix")
def _mixed_inputs(s: Subject) -> None:
    reply = _ask(s, "add_sub", *binary.encode([_SECOND], [_FIRST]))
    equal(list(binary.outputs_of(reply)["OUTPUT1"].items), [-9, -18], "OUTPUT1")


@CASES.specified("Binary inputs follow in the order of the inputs, BYTES among them")
def _order(s: Subject) -> None:
    numbers, texts = mixed()
    for tensors in ((numbers, texts), (texts, numbers)):
        body, headers = binary.encode(tensors, parameters={"binary_data_output": True})
        found = binary.outputs_of(_ask(s, "mixed", body, headers))
        echoed(found, numbers, "NUMBERS_OUT")
        echoed(found, texts, "TEXTS_OUT")


@CASES.specified(
    "The id is returned in a binary answer too", "inference_rest.md, Inference Request JSON Object"
)
def _id(s: Subject) -> None:
    body, headers = binary.encode([_ROW], id="b7", parameters={"binary_data_output": True})
    equal(binary.header_of(_ask(s, "echo_fp32", body, headers)).get("id"), "b7", '"id"')


@CASES.specified(
    "A header's length of 0 means that the body is the one input; all outputs come in binary", _RAW
)
def _raw_request(s: Subject) -> None:
    tensor = Tensor("INPUT0", "FP32", (3,), [1.0, 2.0, 3.0])
    reply = _ask(s, "vector", tensor.raw(), {binary.HEADER: "0", "content-type": _OCTETS})
    found = binary.outputs_of(reply)
    echoed(found, tensor, "OUTPUT0")
    equal(found["OUTPUT0"].parameters.get("binary_data_size"), 12, "binary_data_size")


@CASES.specified("A body of raw BYTES is one element", _RAW)
def _raw_text(s: Subject) -> None:
    tensor = Tensor("text_input", "BYTES", (1,), [b"hello"])
    reply = _ask(s, "text", tensor.raw(), {binary.HEADER: "0", "content-type": _OCTETS})
    # Whether the element's length stands before it, the text leaves open; Triton takes the bytes as
    # they are.
    got = list(binary.outputs_of(reply)["text_output"].items)
    that(got in ([b"hello"], [tensor.raw()]), "the element that was sent", got)


@CASES.specified("A raw request to a model of two inputs is a client error", _RAW)
def _raw_to_two_inputs(s: Subject) -> None:
    client_error(_ask(s, "add_sub", _FIRST.raw(), {binary.HEADER: "0", "content-type": _OCTETS}))


@CASES.specified(
    "A raw request to a model of two variable dimensions is a batch of one, or a client error", _RAW
)
def _raw_to_two_dimensions(s: Subject) -> None:
    reply = _ask(s, "echo_fp32", _ROW.raw(), {binary.HEADER: "0", "content-type": _OCTETS})
    if reply.status == 200:
        # The server takes the first dimension for that of a batch.
        echoed(binary.outputs_of(reply), _ROW, "OUTPUT0")
    else:
        client_error(reply)


@CASES.sensible("A raw request that is no whole number of elements is a client error")
def _raw_of_a_part(s: Subject) -> None:
    client_error(_ask(s, "vector", b"12345", {binary.HEADER: "0", "content-type": _OCTETS}))


@CASES.sensible("A header's length that is no number within the body is a client error")
def _wrong_header(s: Subject) -> None:
    body, headers = binary.encode([_ROW])
    for length in ("x", "-1", "1.5", str(len(body) + 1), "99999999999999999999", ""):
        client_error(_ask(s, "echo_fp32", body, {**headers, binary.HEADER: length}))


@CASES.sensible("A header's length that cuts the JSON is a client error")
def _cut_header(s: Subject) -> None:
    body, headers = binary.encode([_ROW])
    client_error(
        _ask(s, "echo_fp32", body, {**headers, binary.HEADER: str(int(headers[binary.HEADER]) - 3)})
    )


@CASES.sensible("Fewer bytes than the inputs announce are a client error")
def _missing_bytes(s: Subject) -> None:
    body, headers = binary.encode([_ROW])
    client_error(_ask(s, "echo_fp32", body[:-4], headers))


@CASES.sensible("Bytes after the last input are a client error")
def _left_over(s: Subject) -> None:
    client_error(_ask(s, "echo_fp32", *binary.encode([_ROW], excess=b"1234")))


def _size(s: Subject, size: object, shape: tuple[int, ...] = (1, 3), **more: object) -> Reply:
    announced = {
        "name": "INPUT0",
        "datatype": "FP32",
        "shape": list(shape),
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [{**announced, **more}]}).encode()
    return _ask(
        s, "echo_fp32", head + _ROW.raw(), {binary.HEADER: str(len(head)), "content-type": _OCTETS}
    )


@CASES.sensible("A binary_data_size that is not the tensor's size is a client error")
def _wrong_size(s: Subject) -> None:
    client_error(_size(s, 12, (1, 2)))
    client_error(_size(s, 12, (1, 4)))


@CASES.sensible("A binary_data_size that is no whole number of bytes is a client error")
def _odd_size(s: Subject) -> None:
    for size in (-12, "12", 1.5, 2**64, True):
        client_error(_size(s, size))


@CASES.sensible("An input with both data and binary_data_size is a client error")
def _data_twice(s: Subject) -> None:
    client_error(_size(s, 12, data=[1.0, 2.0, 3.0]))


@CASES.sensible("BYTES elements that end early, or announce more than there is, are a client error")
def _broken_bytes(s: Subject) -> None:
    for raw in (
        b"\x05\x00\x00\x00abc",
        b"\x01\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x01\x00\x00\x00ab",
    ):
        tensor = {
            "name": "INPUT0",
            "datatype": "BYTES",
            "shape": [1, 1],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {binary.HEADER: str(len(head)), "content-type": _OCTETS}
        client_error(_ask(s, "echo_bytes", head + raw, headers))
