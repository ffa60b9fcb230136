"""Requests over REST that are wrong: the caller is told so, as a client error with a reason, and
nothing breaks.
"""

from __future__ import annotations

import json
from typing import Any

from stellwerk.conformance.cases.case import Area, Basis, Cases, Check
from stellwerk.conformance.expect import client_error, failed, no_server_error, status
from stellwerk.conformance.server.rest import JSON, model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample

ERRORS = "inference_rest.md, Inference Response JSON Error Object"
CASES = Cases(Area.REST_ERRORS, Transport.REST, ERRORS)
_GOOD = Tensor("INPUT0", "FP32", (1, 2), [1.0, 2.0])
_NOBODY = "conformance_nobody"
_one = _GOOD.json()


@CASES.specified('Malformed JSON fails with {"error": reason}')
def _reason_for_malformed(s: Subject) -> None:
    failed(s.http.post(model_path(s.echo(), "infer"), b'{"inputs": [', JSON))


@CASES.specified('An unknown model fails with {"error": reason}')
def _reason_for_unknown_model(s: Subject) -> None:
    failed(s.post(_NOBODY, [_GOOD]))


@CASES.specified('A missing input fails with {"error": reason}')
def _reason_for_missing_input(s: Subject) -> None:
    failed(s.post(s.model("add_sub"), [Tensor("INPUT0", "INT32", (1, 1), [1])]))


@CASES.specified('Every kind of failure says {"error": reason}')
def _reasons(s: Subject) -> None:
    path = model_path(s.echo(), "infer")
    wrong: list[Any] = [
        b"",
        b"x",
        [],
        {},
        {"inputs": {}},
        {"inputs": [{}]},
        {"inputs": [{**_one, "shape": ["x"]}]},
    ]
    wrong += [
        {"inputs": [{**_one, **change}]}
        for change in ({"data": "x"}, {"datatype": "FLOAT"}, {"data": [1.0]})
    ]
    for body in wrong:
        reply = s.http.post(path, body, JSON)
        if reply.status >= 400:
            failed(reply)


@CASES.convention("Inference on an unknown model answers 404", "Triton, MLServer and KServe do")
def _unknown_model(s: Subject) -> None:
    status(s.post(_NOBODY, [_GOOD]), 404)


@CASES.sensible("Inference on an unknown version answers 404 or 400")
def _unknown_version(s: Subject) -> None:
    status(s.post(s.echo(), [_GOOD], "999999"), 404, 400)


@CASES.sensible("Inference on a version that is no number answers 404 or 400")
def _odd_version(s: Subject) -> None:
    status(s.post(s.echo(), [_GOOD], "abc"), 404, 400)


def _body(name: str, title: str, body: bytes) -> None:
    def check(s: Subject) -> None:
        client_error(s.http.post(model_path(s.echo(), "infer"), body, JSON))

    CASES.add(name, f"{title} is a client error", Basis.SENSIBLE, check)


def _whole(name: str, title: str, request: Any) -> None:
    _body(name, title, json.dumps(request).encode())


def _input(name: str, title: str, datatype: str = "FP32", /, **changes: Any) -> None:
    """Posts one input to the echo of this datatype, with members changed; None leaves one out."""
    CASES.add(name, f"{title} is a client error", Basis.SENSIBLE, _changed(datatype, changes))


def _changed(datatype: str, changes: dict[str, Any]) -> Check:
    def check(s: Subject) -> None:
        client_error(s.post(s.echo(datatype), [sample(datatype).json(**changes)]))

    return check


_body("malformed", "JSON that ends too early", b'{"inputs": [')
_body("not_json", "A body that is no JSON", b"hello")
_body("empty_json_body", "An empty body", b"")
_body("not_utf8", "JSON that is not UTF-8", b'{"id": "\xff\xfe", "inputs": []}')
_body("trailing", "More after the JSON", json.dumps({"inputs": [_one]}).encode() + b"x")
_whole("a_list", "A list instead of an object", [_one])
_whole("null", "null instead of an object", None)
_whole("no_inputs", "A request without inputs", {})
_whole("empty_inputs", "An empty list of inputs", {"inputs": []})
_whole("inputs_no_list", "An object for inputs", {"inputs": _one})
_whole("input_no_object", "A string for an input", {"inputs": ["INPUT0"]})
_whole("id_no_string", "A number as id", {"id": 42, "inputs": [_one]})
_whole("parameters_no_object", "A list of parameters", {"parameters": ["x"], "inputs": [_one]})
_whole(
    "parameter_object",
    "An object as a parameter's value",
    {"parameters": {"x": {"y": 1}}, "inputs": [_one]},
)
_whole(
    "outputs_no_list", "An object for outputs", {"inputs": [_one], "outputs": {"name": "OUTPUT0"}}
)
_whole(
    "output_without_name", "A requested output without a name", {"inputs": [_one], "outputs": [{}]}
)
_whole(
    "unknown_output",
    "An unknown requested output",
    {"inputs": [_one], "outputs": [{"name": "NOPE"}]},
)
_whole("duplicate_input", "An input given twice", {"inputs": [_one, _one]})
_whole(
    "unknown_input", "An input that the model does not take", {"inputs": [{**_one, "name": "NOPE"}]}
)
_whole("extra_input", "An input too many", {"inputs": [_one, {**_one, "name": "NOPE"}]})
_input("no_name", "An input without a name", name=None)
_input("no_shape", "An input without a shape", shape=None)
_input("no_datatype", "An input without a datatype", datatype=None)
_input("no_data", "An input without data", data=None)
_input("unknown_datatype", "The datatype FLOAT", datatype="FLOAT")
_input("wrong_datatype", "INT32 for an input of FP32", datatype="INT32", data=[1, 2, 3, 4, 5, 6])
_input("lower_case_datatype", "The datatype fp32", datatype="fp32")
_input("wrong_rank", "One dimension for an input of two", shape=[6])
_input("negative_shape", "A dimension of -1 in a request", shape=[-1, 3])
_input("fractional_shape", "A dimension of 1.5", shape=[1.5, 4])
_input("textual_shape", "A dimension that is a string", shape=["2", 3])
_input("too_few", "Fewer elements than the shape says", data=[1.0, 2.0])
_input("too_many", "More elements than the shape says", data=[1.0] * 7)
_input("ragged", "Rows of unequal length", data=[[1.0, 2.0], [3.0, 4.0, 5.0, 6.0, 7.0]])
_input("string_for_number", "A string for a number", data=[1.0, 2.0, 3.0, 4.0, 5.0, "six"])
_input("null_for_number", "null for a number", data=[1.0, 2.0, 3.0, 4.0, 5.0, None])
_input("object_for_number", "An object for a number", data=[1.0, 2.0, 3.0, 4.0, 5.0, {}])
_input("data_no_list", "A string for data", data="123456")
_input("float_for_int", "1.5 for INT32", "INT32", data=[1, 2, 3, 4, 5, 1.5])
_input("overflow_int32", "2**31 for INT32", "INT32", data=[1, 2, 3, 4, 5, 2**31])
_input("overflow_int8", "300 for INT8", "INT8", data=[1, 2, 3, 4, 5, 300])
_input("overflow_int64", "2**63 for INT64", "INT64", data=[1, 2, 3, 4, 5, 2**63])
_input("negative_uint8", "-1 for UINT8", "UINT8", data=[1, 2, 3, 4, 5, -1])
_input("negative_uint64", "-1 for UINT64", "UINT64", data=[1, 2, 3, 4, 5, -1])
_input("number_for_bool", "A string for BOOL", "BOOL", data=[True, True, True, True, True, "yes"])
_input("number_for_bytes", "A number for BYTES", "BYTES", data=["a", "b", "c", "d", "e", 6])


@CASES.sensible(
    "A bool for a number is taken or refused, never the server's failure",
    "inference_rest.md, Tensor Data",
)
def _bool_for_number(s: Subject) -> None:
    no_server_error(s.post(s.echo("INT32"), [sample("INT32").json(data=[1, 2, 3, 4, 5, True])]))


@CASES.sensible("NaN and Infinity in JSON are taken or refused, never the server's failure")
def _not_a_number(s: Subject) -> None:
    for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        data = (
            b'{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[' + word + b"]}]}"
        )
        no_server_error(s.http.post(model_path(s.echo(), "infer"), data, JSON))


@CASES.sensible("After wrong requests the same connection serves a right one")
def _afterwards(s: Subject) -> None:
    for body in (b"{", b"", b"[]"):
        s.http.post(model_path(s.echo(), "infer"), body, JSON)
    echoed(s.infer(s.echo(), [_GOOD]), _GOOD, "OUTPUT0")
