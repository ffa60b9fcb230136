"""The gRPC door: passes each public RPC on, as bytes, to the service that serves it.

A method is looked up by its full name in a table made from descriptors; a method that is not in it
does not exist. The process' guard surrounds each call: it authenticates, sets the deadline, writes
the log line and turns errors into a status.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from services.api_gateway.grpc_door import message_limits
from services.api_gateway.grpc_door.inference import GrpcInference
from services.api_gateway.routing import exposed_services
from services.api_gateway.upstream.channels import Upstreams
from stellwerk.wire.errors import Cancelled
from stellwerk.wire.permissions import AUTHENTICATED, INFERENCE_SERVICE, Rule, rule_of

# Takes and returns bytes.
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_INFER = f"/{INFERENCE_SERVICE}/ModelInfer"
_STREAM_INFER = f"/{INFERENCE_SERVICE}/ModelStreamInfer"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
_REFLECTION_METHOD = "ServerReflectionInfo"


def passed_methods() -> dict[str, MethodDescriptor]:
    """Returns the public RPCs that other services serve, by full method."""
    own = f"/{exposed_services.GATEWAY_SERVICE.full_name}/"
    return {
        name: method
        for name, method in exposed_services.public_methods().items()
        if not name.startswith(own)
    }


def rules() -> dict[str, Rule]:
    """Returns the access rules of the RPCs that are passed on, by full method."""
    return {name: rule_of(method) for name, method in passed_methods().items()}


class GrpcDoor(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a method by its full name."""

    def __init__(self, upstreams: Upstreams, inference: GrpcInference) -> None:
        self._handlers: Mapping[str, MethodHandler] = {
            **{
                name: _handler(name, method, upstreams) for name, method in passed_methods().items()
            },
            # Requests for models go over the streams that carry many callers' calls.
            _INFER: grpc.unary_unary_rpc_method_handler(inference.infer),
            _STREAM_INFER: grpc.stream_stream_rpc_method_handler(inference.stream_infer),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        """Returns the handler, None for a method that is not exposed."""
        return self._handlers.get(handler_call_details.method)


def _handler(name: str, method: MethodDescriptor, upstreams: Upstreams) -> MethodHandler:
    kind = method.input_type

    async def unary(request: bytes, _: Any) -> bytes:
        message_limits.check(request, kind)
        return await upstreams.unary(name, request)

    async def client_stream(requests: AsyncIterable[bytes], context: Any) -> bytes:
        return await upstreams.client_stream(name, _checked(_unbroken(requests, context), kind))

    async def server_stream(request: bytes, _: Any) -> AsyncGenerator[bytes, None]:
        message_limits.check(request, kind)
        async with aclosing(upstreams.server_stream(name, request)) as messages:
            async for message in messages:
                yield message

    async def bidi_stream(requests: AsyncIterable[bytes], _: Any) -> AsyncGenerator[bytes, None]:
        async with aclosing(upstreams.bidi_stream(name, _checked(requests, kind))) as messages:
            async for message in messages:
                yield message

    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(bidi_stream)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(client_stream)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(server_stream)
    return grpc.unary_unary_rpc_method_handler(unary)


async def _checked(requests: AsyncIterable[bytes], kind: Descriptor) -> AsyncGenerator[bytes, None]:
    """Yields the messages. Raises TooLarge at the first that has too many fields."""
    async for request in requests:
        message_limits.check(request, kind)
        yield request


async def _unbroken(requests: AsyncIterable[bytes], context: Any) -> AsyncGenerator[bytes, None]:
    """Yields the messages of a stream. Raises Cancelled if it broke off, so that the end of a
    broken upload is not passed on as its end.

    grpc.aio ends the iterator in both cases and cancels the handler a moment later; sending initial
    metadata tells the two apart, because it fails on a stream that is gone.
    """
    async for request in requests:
        yield request
    try:
        await context.send_initial_metadata(())
    except Exception:
        raise Cancelled("the stream broke off before its end") from None


def reflection_handler() -> tuple[grpc.GenericRpcHandler, dict[str, Rule]]:
    """Returns server reflection of the public services, for callers with a token, and its rule."""
    servicer = reflection.aio.ReflectionServicer(
        [service.full_name for service in exposed_services.SERVED_BY]
    )
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    rule = Rule(f"/{_REFLECTION}/{_REFLECTION_METHOD}", AUTHENTICATED, "", False, False)
    return grpc.method_handlers_generic_handler(_REFLECTION, {_REFLECTION_METHOD: handler}), {
        rule.method: rule
    }
