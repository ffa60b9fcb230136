"""Probes: each tells whether a server that does not advertise an extension answers it."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import Reply, model_path
from stellwerk.conformance.server.rpc import infer_request
from stellwerk.conformance.server.subject import Probe, Subject, Transport
from stellwerk.conformance.values import sample
from stellwerk.inference.v2 import grpc_service_pb2 as pb

_ABSENT = (404, 405, 501)


def _streaming(s: Subject, _: Transport) -> bool:
    try:
        list(s.grpc.open_stream([infer_request(s.echo(), [sample("FP32")])]))
    except grpc.RpcError as exc:
        return bool(exc.code() is not grpc.StatusCode.UNIMPLEMENTED)
    return True


def _binary(s: Subject, _: Transport) -> bool:
    body, headers = binary.encode([sample("FP32")])
    return s.http.post(model_path(s.echo(), "infer"), body, headers).status == 200


def _generate(s: Subject, _: Transport) -> bool:
    reply = s.http.post(model_path(s.model("text"), "generate"), {"text_input": "x"})
    # MLServer's route of this name takes tensors and is no part of this extension.
    return reply.status == 200 and "text_output" in reply.json()


def _there(reply: Reply) -> bool:
    return reply.status not in _ABSENT


def _either(
    rest: Callable[[Subject], Reply], method: str, request: Callable[[Subject], object]
) -> Probe:
    """Returns a probe that asks over the transport in question."""

    def probe(s: Subject, transport: Transport) -> bool:
        if transport is Transport.REST:
            return _there(rest(s))
        refusal = s.grpc.refusal(method, request(s))
        return refusal is None or refusal.code is not grpc.StatusCode.UNIMPLEMENTED

    return probe


# Priority, timeout and classification have no probe: a server that lacks them may ignore them.
PROBES: dict[str, Probe] = {
    "streaming": _streaming,
    "binary_tensor_data": _binary,
    "generate": _generate,
    "statistics": _either(
        lambda s: s.http.get(model_path(s.echo(), "stats")),
        "ModelStatistics",
        lambda s: pb.ModelStatisticsRequest(name=s.echo()),
    ),
    "model_configuration": _either(
        lambda s: s.http.get(model_path(s.echo(), "config")),
        "ModelConfig",
        lambda s: pb.ModelConfigRequest(name=s.echo()),
    ),
    "model_repository": _either(
        lambda s: s.http.post("/v2/repository/index", {}),
        "RepositoryIndex",
        lambda s: pb.RepositoryIndexRequest(),
    ),
}
