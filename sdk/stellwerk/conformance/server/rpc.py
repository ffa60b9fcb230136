"""Calls `inference.GRPCInferenceService` with bare stubs, and keeps how a call failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from stellwerk.conformance.expect import Mismatch, shown, that
from stellwerk.conformance.values import FIELDS, Tensor, unpack
from stellwerk.inference.v2 import grpc_service_pb2 as pb
from stellwerk.inference.v2 import grpc_service_pb2_grpc

Metadata = Sequence[tuple[str, str]]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call."""

    code: grpc.StatusCode
    text: str

    def brief(self) -> str:
        """Returns code and text in one line."""
        return shown(f"{self.code.name}: {self.text}")


class Rpc:
    """A channel to one server."""

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        scheme, _, target = address.rpartition("://")
        secure = scheme in ("grpcs", "https")
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), UNLIMITED)
            if secure
            else grpc.insecure_channel(target, UNLIMITED)
        )
        self._stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata: Metadata = [("authorization", f"Bearer {token}")] if token else []
        self.timeout = timeout

    def outcome(self, method: str, request: Any, **options: Any) -> Any:
        """Returns the response, or how the call failed."""
        try:
            return getattr(self._stub, method)(
                request, metadata=self._metadata, timeout=self.timeout, **options
            )
        except grpc.RpcError as exc:
            return _refusal(exc)

    def call(self, method: str, request: Any, **options: Any) -> Any:
        """Returns the response. Raises Mismatch if the call fails."""
        found = self.outcome(method, request, **options)
        if isinstance(found, Refusal):
            raise Mismatch(f"{method} to succeed", found.brief())
        return found

    def refusal(self, method: str, request: Any) -> Refusal | None:
        """Returns how the call failed, None if it did not."""
        found = self.outcome(method, request)
        return found if isinstance(found, Refusal) else None

    def stream(
        self, requests: Iterable[pb.ModelInferRequest], metadata: Metadata = ()
    ) -> list[Any]:
        """Returns all responses of a ModelStreamInfer with these requests. Raises Mismatch if the
        stream fails.
        """
        given = [*self._metadata, *metadata]
        try:
            return list(
                self._stub.ModelStreamInfer(iter(requests), metadata=given, timeout=self.timeout)
            )
        except grpc.RpcError as exc:
            raise stream_failed(exc) from exc

    def open_stream(self, requests: Iterable[pb.ModelInferRequest]) -> Any:
        """Returns a running ModelStreamInfer, whose errors are the caller's."""
        return self._stub.ModelStreamInfer(
            iter(requests), metadata=self._metadata, timeout=self.timeout
        )

    def unary(self, path: str, request: bytes) -> bytes:
        """Calls a method by its path; request and response are bytes. Raises grpc.RpcError."""
        call: Any = self._channel.unary_unary(path)
        answer: bytes = call(request, metadata=self._metadata, timeout=self.timeout)
        return answer

    def reachable(self) -> str:
        """Returns the reason why the server cannot be reached, "" if it answers."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=self.timeout)
        except grpc.FutureTimeoutError:
            return f"no gRPC connection within {self.timeout:g} s"
        return ""

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def stream_failed(exc: Any) -> Mismatch:
    """Returns the Mismatch for a stream that ended with an error."""
    text = _refusal(exc).brief()
    if "deserializing response" in text:
        text = "messages that are no ModelStreamInferResponse"
    return Mismatch("the stream to end well", text)


def _refusal(exc: Any) -> Refusal:
    return Refusal(exc.code(), exc.details() or "")


def infer_request(
    model: str,
    inputs: Sequence[Tensor],
    *,
    typed: bool = False,
    outputs: Sequence[str] = (),
    **fields: Any,
) -> pb.ModelInferRequest:
    """Returns a ModelInferRequest, with raw contents unless `typed`."""
    request = pb.ModelInferRequest(
        model_name=model, inputs=[tensor.message(typed) for tensor in inputs], **fields
    )
    request.outputs.extend(
        pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs
    )
    if not typed:
        request.raw_input_contents.extend(tensor.raw() for tensor in inputs)
    return request


def outputs_of(response: Any) -> dict[str, Tensor]:
    """Returns the outputs by name, in their order, from raw or typed contents. Raises Mismatch if
    they are neither.
    """
    raw = list(response.raw_output_contents)
    if raw:
        expected = f"a raw entry for each of {len(response.outputs)} outputs"
        that(len(raw) == len(response.outputs), expected, f"{len(raw)} entries")
    found = {}
    for index, output in enumerate(response.outputs):
        if raw:
            items = unpack(output.datatype, raw[index])
        else:
            that(
                output.datatype in FIELDS,
                "raw contents, as this datatype has no typed ones",
                output.datatype,
            )
            items = list(getattr(output.contents, FIELDS[output.datatype]))
        found[output.name] = Tensor(
            output.name, output.datatype, tuple(output.shape), items, output.parameters
        )
    return found


def parameter(value: bool | int | str | float) -> pb.InferParameter:
    """Returns a parameter as clients send it."""
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int):
        return pb.InferParameter(int64_param=value)
    if isinstance(value, str):
        return pb.InferParameter(string_param=value)
    return pb.InferParameter(double_param=value)


def plain(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Returns parameters as plain values."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in parameters.items()
    }
