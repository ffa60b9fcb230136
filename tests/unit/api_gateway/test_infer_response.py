"""Answers of the Open Inference Protocol over REST: as JSON, as binary data, mixed, and as one of
many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from services.api_gateway.open_inference.infer_request import AS_BINARY, AS_JSON, OutputForm
from services.api_gateway.open_inference.infer_response import write_part, write_response
from services.api_gateway.upstream.replies import ModelReply
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import tensors
from stellwerk.wire.open_inference import InferRequest

SCORES = tensors.from_numpy("scores", np.array([[0.25, 1.1], [0.5, -1]], "<f4"))
WORDS = tensors.from_numpy("words", np.array([b"a", b"\xff"]))


def request(**changes: Any) -> InferRequest:
    given: dict[str, Any] = {
        "model": "team:m",
        "version": "",
        "id": "",
        "work": work_pb2.WorkItem(),
    }
    return InferRequest(**{**given, **changes})


def reply(*outputs: Any, final: bool = True) -> ModelReply:
    return ModelReply("buckets/team/models/m/versions/12", list(outputs), final)


def test_the_answer_says_the_model_as_it_was_asked_for_and_the_version_that_answered() -> None:
    body = write_response(request(id="7"), AS_JSON, reply(SCORES)).body

    assert body == (
        b'{"model_name":"team:m","model_version":"12","id":"7",'
        b'"outputs":[{"name":"scores","shape":[2,2],"datatype":"FP32","data":[0.25,1.1,0.5,-1.0]}]}'
    )


def test_an_id_is_answered_only_if_one_was_given() -> None:
    assert b'"id"' not in write_response(request(), AS_JSON, reply()).body


def test_outputs_as_binary_data_follow_the_json_in_their_order() -> None:
    answer = write_response(request(), AS_BINARY, reply(SCORES, WORDS))

    headers = dict(answer.headers or [])
    size = int(headers[b"inference-header-content-length"])
    described = orjson.loads(answer.body[:size])["outputs"]
    assert answer.content_type == b"application/octet-stream"
    assert [output["parameters"]["binary_data_size"] for output in described] == [
        16,
        len(WORDS.data),
    ]
    assert not any("data" in output for output in described)
    assert answer.body[size:] == SCORES.data + WORDS.data


def test_what_is_said_of_an_output_goes_before_what_is_said_of_all() -> None:
    mixed = write_response(request(), OutputForm(True, {"scores": False}), reply(SCORES, WORDS))
    json_only = write_response(request(), OutputForm(True, {"scores": False}), reply(SCORES))

    size = int(dict(mixed.headers or [])[b"inference-header-content-length"])
    assert orjson.loads(mixed.body[:size])["outputs"][0]["data"] == [0.25, 1.1, 0.5, -1.0]
    assert mixed.body[size:] == WORDS.data
    assert (json_only.content_type, json_only.headers) == (b"application/json", None)


def test_classes_take_the_place_of_an_output_in_either_form() -> None:
    wanted = request(classes={"scores": 1})

    printed = orjson.loads(write_response(wanted, AS_JSON, reply(SCORES)).body)["outputs"][0]

    assert (printed["datatype"], printed["shape"]) == ("BYTES", [2, 1])
    assert printed["data"] == ["1.100000:1", "0.500000:0"]
    assert b"1.100000:1" in write_response(wanted, AS_BINARY, reply(SCORES)).body


def test_one_of_many_answers_says_whether_it_is_the_last() -> None:
    part = orjson.loads(write_part(request(id="7"), reply(SCORES, final=False)))
    end = orjson.loads(write_part(request(), reply()))

    assert part["parameters"] == {"triton_final_response": False}
    assert (part["id"], part["outputs"][0]["name"]) == ("7", "scores")
    assert (end["parameters"], end["outputs"]) == ({"triton_final_response": True}, [])
