"""Inference over REST that succeeds: what the answer holds, and the forms that a request may
take.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.cases.rest.server import version_of
from stellwerk.conformance.expect import equal, failed, json_object, status, that
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import JSON, model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample

REQUEST = "inference_rest.md, Inference Request JSON Object"
RESPONSE = "inference_rest.md, Inference Response JSON Object"
DATA = "inference_rest.md, Tensor Data"
CASES = Cases(Area.REST, Transport.REST, REQUEST)
FIRST = Tensor("INPUT0", "INT32", (2, 2), [1, 2, 3, 4])
SECOND = Tensor("INPUT1", "INT32", (2, 2), [10, 20, 30, 40])
SUM, DIFFERENCE = [11, 22, 33, 44], [-9, -18, -27, -36]


@CASES.specified(
    "An answer names the model and gives each output's name, shape, datatype and data", RESPONSE
)
def _response(s: Subject) -> None:
    model = s.echo()
    reply = s.post(model, [sample("FP32")])
    status(reply, 200)
    body = json_object(reply)
    equal(body.get("model_name"), model, '"model_name"')
    echoed(binary.outputs_of(reply), sample("FP32"), "OUTPUT0")


@CASES.specified("The request's id is returned")
def _id(s: Subject) -> None:
    for wanted in ("42", "x" * 200):
        equal(json_object(s.post(s.echo(), [sample("FP32")], id=wanted)).get("id"), wanted, '"id"')


@CASES.specified("An id may be any string")
def _any_id(s: Subject) -> None:
    for wanted in ("Grüße/…\"'", "two words"):
        equal(json_object(s.post(s.echo(), [sample("FP32")], id=wanted)).get("id"), wanted, '"id"')


@CASES.specified("A version in the path is used, and named in the answer", RESPONSE)
def _version(s: Subject) -> None:
    model = s.echo()
    version = version_of(s, model)
    reply = s.post(model, [sample("FP32")], version)
    status(reply, 200)
    equal(json_object(reply).get("model_version"), version, '"model_version"')


@CASES.specified("Data may be nested or flat", DATA)
def _nested(s: Subject) -> None:
    nested = FIRST.json(data=[[1, 2], [3, 4]])
    equal(s.infer(s.model("add_sub"), [nested, SECOND])["OUTPUT0"].items, SUM, "OUTPUT0")
    equal(s.infer(s.model("add_sub"), [FIRST, SECOND])["OUTPUT0"].items, SUM, "OUTPUT0")


@CASES.specified("Inputs are told apart by name, not by place")
def _input_order(s: Subject) -> None:
    equal(s.infer(s.model("add_sub"), [SECOND, FIRST])["OUTPUT1"].items, DIFFERENCE, "OUTPUT1")


@CASES.specified("Without requested outputs all are returned")
def _all_outputs(s: Subject) -> None:
    equal(sorted(s.infer(s.model("add_sub"), [FIRST, SECOND])), ["OUTPUT0", "OUTPUT1"], "outputs")


@CASES.sensible("An empty list of requested outputs means all")
def _empty_outputs(s: Subject) -> None:
    equal(
        sorted(s.infer(s.model("add_sub"), [FIRST, SECOND], outputs=[])),
        ["OUTPUT0", "OUTPUT1"],
        "outputs",
    )


@CASES.specified("Only the requested outputs are returned")
def _selection(s: Subject) -> None:
    found = s.infer(s.model("add_sub"), [FIRST, SECOND], outputs=[{"name": "OUTPUT1"}])
    equal(list(found), ["OUTPUT1"], "outputs")
    equal(found["OUTPUT1"].items, DIFFERENCE, "OUTPUT1")


@CASES.sensible("Outputs come in the order in which they were requested")
def _order(s: Subject) -> None:
    wanted = [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]
    equal(
        list(s.infer(s.model("add_sub"), [FIRST, SECOND], outputs=wanted)),
        ["OUTPUT1", "OUTPUT0"],
        "outputs",
    )


@CASES.specified(
    "Parameters that the server does not know do no harm", "inference_rest.md, Parameters"
)
def _unknown_parameters(s: Subject) -> None:
    parameters = {"conformance_text": "x", "conformance_number": 1.5, "conformance_truth": True}
    tensor = sample("FP32").json(parameters={"conformance_note": "x"})
    echoed(s.infer(s.echo(), [tensor], parameters=parameters), sample("FP32"), "OUTPUT0")


@CASES.sensible("Members that the protocol does not know are ignored")
def _unknown_members(s: Subject) -> None:
    echoed(
        s.infer(s.echo(), [sample("FP32").json(note=1)], note={"a": [1]}), sample("FP32"), "OUTPUT0"
    )


@CASES.sensible("JSON may hold whitespace, escapes and whole numbers for floats")
def _json_forms(s: Subject) -> None:
    body = (
        rb'{ "inputs" :[ {"n\u0061me":"INPUT\u0030", "datatype":"FP32","shape":[ 1 ,2 ], "data":['
        rb" 1, 2e0 ]}]} " + b"\n"
    )
    reply = s.http.post(model_path(s.echo(), "infer"), body, JSON)
    equal(binary.outputs_of(reply)["OUTPUT0"].items, [1.0, 2.0], "OUTPUT0")


@CASES.sensible("The content type of a request may carry a charset, or be missing")
def _content_types(s: Subject) -> None:
    body = json.dumps({"inputs": [sample("FP32").json()]}).encode()
    for headers in ({"content-type": "application/json; charset=utf-8"}, {}):
        reply = s.http.post(model_path(s.echo(), "infer"), body, headers)
        echoed(binary.outputs_of(reply), sample("FP32"), "OUTPUT0")


@CASES.sensible("A body sent in chunks is read", "RFC 9112, 7.1")
def _chunked(s: Subject) -> None:
    body = json.dumps({"inputs": [sample("FP32").json()]}).encode()
    reply = s.http.post(
        model_path(s.echo(), "infer"),
        tuple(body[at : at + 20] for at in range(0, len(body), 20)),
        JSON,
    )
    echoed(binary.outputs_of(reply), sample("FP32"), "OUTPUT0")


@CASES.sensible("Thirty-two requests at once each get their own answer")
def _concurrent(s: Subject) -> None:
    model = s.model("add_sub")

    def ask(number: int) -> tuple[str, list[int]]:
        tensor = Tensor("INPUT0", "INT32", (1, 1), [number])
        reply = s.post(model, [tensor, Tensor("INPUT1", "INT32", (1, 1), [1000])], id=f"r{number}")
        return json_object(reply).get("id"), list(binary.outputs_of(reply)["OUTPUT0"].items)  # type: ignore[return-value]

    with ThreadPoolExecutor(32) as pool:
        equal(list(pool.map(ask, range(32))), [(f"r{n}", [n + 1000]) for n in range(32)], "answers")


@CASES.sensible(
    "A model's own error is told as an error with a reason, and the next request is served"
)
def _model_error(s: Subject) -> None:
    model = s.model("fails_on_13")
    failed(s.post(model, [Tensor("INPUT0", "INT64", (1, 1), [13])]))
    good = Tensor("INPUT0", "INT64", (1, 2), [0, 12])
    echoed(s.infer(model, [good]), good, "OUTPUT0")


@CASES.sensible("A model's own error does not fail the requests beside it")
def _model_error_beside(s: Subject) -> None:
    model = s.model("fails_on_13")

    def ask(number: int) -> int:
        return s.post(model, [Tensor("INPUT0", "INT64", (1, 1), [number])]).status

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [1, 13, 2, 3, 13, 4, 5, 6]))
    that(
        [code == 200 for code in found] == [n != 13 for n in (1, 13, 2, 3, 13, 4, 5, 6)],
        "errors for 13 alone",
        found,
    )
