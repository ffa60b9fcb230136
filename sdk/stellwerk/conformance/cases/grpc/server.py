"""The server itself over gRPC: health, metadata and what succeeds of inference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.cases.rest.infer import DIFFERENCE, FIRST, SECOND, SUM
from stellwerk.conformance.expect import NotApplicable, code, equal, that
from stellwerk.conformance.server.rpc import infer_request, outputs_of, parameter
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.values import Tensor, echoed, sample
from stellwerk.inference.v2 import grpc_service_pb2 as pb

CASES = Cases(Area.GRPC, Transport.GRPC, "inference_grpc.md, Health")
_INFER, _NOBODY = "inference_grpc.md, Inference", "conformance_nobody"
_METADATA = "inference_grpc.md, Metadata"


@CASES.specified("ServerLive says live")
def _live(s: Subject) -> None:
    equal(s.grpc.call("ServerLive", pb.ServerLiveRequest()).live, True, "live")


@CASES.specified("ServerReady says ready")
def _ready(s: Subject) -> None:
    equal(s.grpc.call("ServerReady", pb.ServerReadyRequest()).ready, True, "ready")


@CASES.specified("ModelReady says ready, with and without a version")
def _model_ready(s: Subject) -> None:
    model = s.echo()
    for version in ("", version_of(s, model)):
        equal(
            s.grpc.call("ModelReady", pb.ModelReadyRequest(name=model, version=version)).ready,
            True,
            "ready",
        )


@CASES.sensible("ModelReady of an unknown model is OK and says not ready", "the answer is a bool")
def _unknown_ready(s: Subject) -> None:
    equal(s.grpc.call("ModelReady", pb.ModelReadyRequest(name=_NOBODY)).ready, False, "ready")


@CASES.sensible("ModelReady of an unknown version, a number or not, is OK and says not ready")
def _unknown_version_ready(s: Subject) -> None:
    for version in ("999999", "abc"):
        equal(
            s.grpc.call("ModelReady", pb.ModelReadyRequest(name=s.echo(), version=version)).ready,
            False,
            "ready",
        )


@CASES.specified("ServerMetadata gives a name", _METADATA)
def _server_metadata(s: Subject) -> None:
    that(s.grpc.call("ServerMetadata", pb.ServerMetadataRequest()).name, "a name", "none")


@CASES.specified("ServerMetadata lists the same extensions as REST", _METADATA)
def _same_extensions(s: Subject) -> None:
    if s.rest is None:
        raise NotApplicable("no REST address was given")
    listed = sorted(s.grpc.call("ServerMetadata", pb.ServerMetadataRequest()).extensions)
    equal(listed, sorted(s.advertised), "extensions")


@CASES.specified("ModelMetadata describes inputs and outputs", _METADATA)
def _model_metadata(s: Subject) -> None:
    found = s.grpc.call("ModelMetadata", pb.ModelMetadataRequest(name=s.model("mixed")))
    equal(found.name, s.model("mixed"), "name")
    inputs = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found.inputs]
    equal(inputs, [("NUMBERS", "FP32", [-1, -1]), ("TEXTS", "BYTES", [-1, -1])], "inputs")
    outputs = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found.outputs]
    equal(outputs, [("NUMBERS_OUT", "FP32", [-1, -1]), ("TEXTS_OUT", "BYTES", [-1, -1])], "outputs")


@CASES.convention(
    "ModelMetadata of an unknown model is NOT_FOUND", "Triton, MLServer and KServe do"
)
def _unknown_metadata(s: Subject) -> None:
    code(
        s.grpc.refusal("ModelMetadata", pb.ModelMetadataRequest(name=_NOBODY)),
        grpc.StatusCode.NOT_FOUND,
    )


@CASES.specified("ModelInfer names the model and the version that was used", _INFER)
def _infer(s: Subject) -> None:
    model = s.echo()
    version = version_of(s, model)
    response = s.grpc.call(
        "ModelInfer", infer_request(model, [sample("FP32")], model_version=version)
    )
    equal((response.model_name, response.model_version), (model, version), "name and version")
    echoed(outputs_of(response), sample("FP32"), "OUTPUT0")


@CASES.specified("The request's id is returned", _INFER)
def _id(s: Subject) -> None:
    for wanted in ("42", "x" * 200):
        equal(
            s.grpc.call("ModelInfer", infer_request(s.echo(), [sample("FP32")], id=wanted)).id,
            wanted,
            "id",
        )


@CASES.specified("An id may be any string", _INFER)
def _any_id(s: Subject) -> None:
    equal(
        s.grpc.call("ModelInfer", infer_request(s.echo(), [sample("FP32")], id="Grüße")).id,
        "Grüße",
        "id",
    )


@CASES.specified("Without requested outputs all are returned", _INFER)
def _all_outputs(s: Subject) -> None:
    found = s.call(s.model("add_sub"), [FIRST, SECOND])
    equal(
        {name: list(tensor.items) for name, tensor in found.items()},
        {"OUTPUT0": SUM, "OUTPUT1": DIFFERENCE},
        "all",
    )


@CASES.specified("Only the requested outputs are returned", _INFER)
def _selection(s: Subject) -> None:
    found = s.call(s.model("add_sub"), [FIRST, SECOND], outputs=["OUTPUT1"])
    equal(
        {name: list(tensor.items) for name, tensor in found.items()},
        {"OUTPUT1": DIFFERENCE},
        "outputs",
    )


@CASES.sensible("Outputs come in the order in which they were requested")
def _order(s: Subject) -> None:
    found = s.call(s.model("add_sub"), [FIRST, SECOND], outputs=["OUTPUT1", "OUTPUT0"])
    equal(list(found), ["OUTPUT1", "OUTPUT0"], "outputs")
    equal(list(found["OUTPUT1"].items), DIFFERENCE, "OUTPUT1")


@CASES.specified(
    "Inputs are told apart by name; raw contents follow the order of the inputs", _INFER
)
def _input_order(s: Subject) -> None:
    equal(list(s.call(s.model("add_sub"), [SECOND, FIRST])["OUTPUT1"].items), DIFFERENCE, "OUTPUT1")


@CASES.convention(
    "A typed request too is answered raw", "tritonclient.grpc as_numpy reads nothing else"
)
def _raw_answer(s: Subject) -> None:
    response = s.grpc.call("ModelInfer", infer_request(s.echo(), [sample("FP32")], typed=True))
    equal(len(response.raw_output_contents), 1, "raw entries")


@CASES.specified("An answer has raw contents or typed ones, never both", _INFER)
def _one_form(s: Subject) -> None:
    response = s.grpc.call("ModelInfer", infer_request(s.echo(), [sample("FP32")]))
    both = response.raw_output_contents and any(
        output.HasField("contents") for output in response.outputs
    )
    that(not both, "no contents beside raw_output_contents", response)


@CASES.specified(
    "Parameters that the server does not know do no harm", "inference_grpc.md, Parameters"
)
def _unknown_parameters(s: Subject) -> None:
    values = {
        "conformance_a": parameter("x"),
        "conformance_b": parameter(1),
        "conformance_c": parameter(True),
    }
    echoed(s.call(s.echo(), [sample("FP32")], parameters=values), sample("FP32"), "OUTPUT0")


@CASES.convention(
    "A message packed with gzip is read", "tritonclient.grpc infer(compression_algorithm=…)"
)
def _compressed(s: Subject) -> None:
    request = infer_request(s.echo(), [sample("FP32")])
    response = s.grpc.call("ModelInfer", request, compression=grpc.Compression.Gzip)
    echoed(outputs_of(response), sample("FP32"), "OUTPUT0")


@CASES.convention("grpc.health.v1 says SERVING", "Kubernetes gRPC probes, Envoy")
def _health(s: Subject) -> None:
    try:
        answer = s.grpc.unary("/grpc.health.v1.Health/Check", b"")
    except grpc.RpcError as exc:
        that(False, "SERVING", f"{exc.code().name}: {exc.details()}")
    else:
        equal(answer, b"\x08\x01", "status SERVING, encoded")


@CASES.sensible("Thirty-two calls at once each get their own answer")
def _concurrent(s: Subject) -> None:
    model = s.model("add_sub")

    def ask(number: int) -> tuple[str, list[int]]:
        tensors = [
            Tensor(f"INPUT{n}", "INT32", (1, 1), [value]) for n, value in enumerate((number, 1000))
        ]
        response = s.grpc.call("ModelInfer", infer_request(model, tensors, id=f"r{number}"))
        return response.id, list(outputs_of(response)["OUTPUT0"].items)

    with ThreadPoolExecutor(32) as pool:
        equal(list(pool.map(ask, range(32))), [(f"r{n}", [n + 1000]) for n in range(32)], "answers")


def version_of(s: Subject, model: str) -> str:
    """Returns a version that the model's metadata lists. Raises NotApplicable if it lists none."""
    versions = s.grpc.call("ModelMetadata", pb.ModelMetadataRequest(name=model)).versions
    if not versions:
        raise NotApplicable("the server does not version its models")
    return str(versions[-1])
