"""ModelStreamInfer: many requests on one stream, errors in their place, decoupled models."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.expect import code, equal, that
from stellwerk.conformance.server.rpc import (
    infer_request,
    outputs_of,
    parameter,
    plain,
    stream_failed,
)
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample

CASES = Cases(Area.STREAMING, Transport.GRPC, "grpc_service.proto, ModelStreamInfer", "streaming")
_FINAL = "triton_final_response"


def _count(s: Subject, count: int, **parameters: bool) -> Any:
    tensor = Tensor("COUNT", "INT32", (1,), [count])
    values = {name: parameter(value) for name, value in parameters.items()}
    return infer_request(s.model("count_up"), [tensor], id=f"c{count}", parameters=values)


def _index(response: Any) -> int:
    return int(outputs_of(response.infer_response)["INDEX"].items[0])


@CASES.specified("Each request of a stream is answered, with its id")
def _answers(s: Subject) -> None:
    responses = s.grpc.stream(
        [infer_request(s.echo(), [sample("FP32")], id=f"s{n}") for n in range(5)]
    )
    equal([response.error_message for response in responses], [""] * 5, "errors")
    equal(
        sorted(response.infer_response.id for response in responses),
        [f"s{n}" for n in range(5)],
        "ids",
    )
    echoed(outputs_of(responses[0].infer_response), sample("FP32"), "OUTPUT0")


@CASES.specified("An error is told in its response and does not end the stream")
def _error_in_band(s: Subject) -> None:
    requests = [
        infer_request(name, [sample("FP32")], id=name) for name in ("conformance_nobody", s.echo())
    ]
    bad, good = _two(s.grpc.stream(requests))
    that(bad.error_message, "an error_message", bad)
    equal(good.error_message, "", "error_message")
    echoed(outputs_of(good.infer_response), sample("FP32"), "OUTPUT0")


def _two(responses: list[Any]) -> list[Any]:
    """Returns two responses, that with the error first."""
    equal(len(responses), 2, "number of responses")
    return sorted(responses, key=lambda response: not response.error_message)


@CASES.convention("A response with an error names the request", "Triton")
def _error_has_id(s: Subject) -> None:
    (bad,) = s.grpc.stream([infer_request("conformance_nobody", [sample("FP32")], id="e1")])
    equal(bad.infer_response.id, "e1", "id")


@CASES.specified("A wrong tensor is told in its response and does not end the stream")
def _wrong_tensor(s: Subject) -> None:
    wrong = infer_request(s.echo(), [sample("FP32")], id="w")
    wrong.raw_input_contents[0] = b"123"
    bad, good = _two(s.grpc.stream([wrong, infer_request(s.echo(), [sample("FP32")], id="g")]))
    that(bad.error_message, "an error_message", bad)
    equal(good.infer_response.id, "g", "id")


@CASES.specified("A model's own error is told in its response and does not end the stream")
def _model_error(s: Subject) -> None:
    model = s.model("fails_on_13")
    requests = [
        infer_request(model, [Tensor("INPUT0", "INT64", (1, 1), [n])], id=str(n)) for n in (13, 7)
    ]
    bad, good = _two(s.grpc.stream(requests))
    that(bad.error_message, "an error_message", bad)
    equal(good.infer_response.id, "7", "id")


@CASES.convention("An answer comes while the stream is still open", "tritonclient start_stream")
def _interleaved(s: Subject) -> None:
    requests: queue.Queue[Any] = queue.Queue()
    call = s.grpc.open_stream(iter(requests.get, None))
    try:
        for number in range(3):
            requests.put(infer_request(s.echo(), [sample("FP32")], id=f"i{number}"))
            equal(next(call).infer_response.id, f"i{number}", "id")
    except grpc.RpcError as exc:
        raise stream_failed(exc) from exc
    finally:
        requests.put(None)
        call.cancel()


@CASES.specified("A stream without requests ends well")
def _empty(s: Subject) -> None:
    equal(s.grpc.stream([]), [], "responses")


@CASES.convention("An answer says in triton_final_response whether it is the last", "tritonclient")
def _final_flag(s: Subject) -> None:
    (response,) = s.grpc.stream([infer_request(s.echo(), [sample("FP32")])])
    equal(plain(response.infer_response.parameters).get(_FINAL), True, _FINAL)


@CASES.convention(
    "A cancelled stream harms nothing", "tritonclient stop_stream(cancel_requests=True)"
)
def _cancelled(s: Subject) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield infer_request(s.echo(), [sample("FP32")])

    call = s.grpc.open_stream(endless())
    try:
        next(call)
    except grpc.RpcError as exc:
        raise stream_failed(exc) from exc
    call.cancel()
    echoed(s.call(s.echo(), [sample("FP32")]), sample("FP32"), "OUTPUT0")


@CASES.specified("A decoupled model answers as often as it likes")
def _decoupled(s: Subject) -> None:
    responses = s.grpc.stream([_count(s, 3)])
    equal(
        [_index(response) for response in responses if response.infer_response.outputs],
        [0, 1, 2],
        "INDEX",
    )
    equal({response.infer_response.id for response in responses}, {"c3"}, "id")


@CASES.specified("A decoupled model may answer not at all")
def _decoupled_nothing(s: Subject) -> None:
    responses = s.grpc.stream([_count(s, 0), _count(s, 1)])
    equal(
        [_index(response) for response in responses if response.infer_response.outputs],
        [0],
        "INDEX",
    )


@CASES.convention(
    "With triton_enable_empty_final_response the last message is empty and final", "tritonclient"
)
def _empty_final(s: Subject) -> None:
    responses = s.grpc.stream([_count(s, 2, triton_enable_empty_final_response=True)])
    flags = [plain(response.infer_response.parameters).get(_FINAL) for response in responses]
    equal(flags, [False, False, True], _FINAL)
    that(not responses[-1].infer_response.outputs, "no outputs in the last message", responses[-1])


@CASES.convention(
    "Without it a decoupled model's answers are not marked final, and no empty message follows",
    "Triton",
)
def _no_empty_final(s: Subject) -> None:
    responses = s.grpc.stream([_count(s, 2)])
    equal(len(responses), 2, "number of messages")


@CASES.specified("A decoupled model's error comes after its answers")
def _decoupled_error(s: Subject) -> None:
    responses = s.grpc.stream([_count(s, 13)])
    equal([bool(response.error_message) for response in responses], [False, False, True], "errors")


@CASES.convention("ModelInfer of a decoupled model is UNIMPLEMENTED", "Triton")
def _unary_decoupled(s: Subject) -> None:
    code(s.grpc.refusal("ModelInfer", _count(s, 3)), grpc.StatusCode.UNIMPLEMENTED)
