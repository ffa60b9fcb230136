"""Predicting over REST: infer, generate, and both as a stream of server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from services.api_gateway.generation import text_generate as generate
from services.api_gateway.http import status as http_status
from services.api_gateway.http.exchange import Visit
from services.api_gateway.http.response import Answer, Stream
from services.api_gateway.open_inference import infer_request, raw_request
from services.api_gateway.open_inference import infer_response as infer_answer
from services.api_gateway.open_inference.infer_request import AS_BINARY, Form
from services.api_gateway.open_inference.metadata_cache import Signatures
from services.api_gateway.upstream.model_calls import Answered
from services.chassis.context import CallContext
from stellwerk.wire.errors import NotImplementedHere, ServiceError
from stellwerk.wire.open_inference import InferRequest

_EVENTS = b"text/event-stream; charset=utf-8"


class Caller(Protocol):
    """The way to the models; see `calls`."""

    async def call(self, ask: InferRequest, call: CallContext) -> Answered: ...

    def stream(self, ask: InferRequest, call: CallContext) -> AsyncGenerator[Answered]: ...


class Predictions:
    """Handlers of the routes that call models."""

    def __init__(self, calls: Caller, signatures: Signatures) -> None:
        self._calls, self._signatures = calls, signatures

    async def unary(self, visit: Visit) -> Answer:
        """ModelInfer: infer or generate, as the route says."""
        if visit.match.route.template.text.endswith("/generate"):
            return await self._generate(visit)
        ask, form = await self._infer_request(visit)
        return infer_answer.write(ask, form, await self._calls.call(ask, visit.call))

    async def stream(self, visit: Visit) -> Stream:
        """ModelStreamInfer: infer_stream or generate_stream, as the route says; each answer is an
        event.
        """
        if visit.match.route.template.text.endswith("/generate_stream"):
            ask, write = await self._generate_request(visit), generate.write
        else:
            (ask, _), write = await self._infer_request(visit), infer_answer.write_part
        answers = self._calls.stream(ask, _bounded(visit))
        first = await anext(answers)
        return Stream(_events(ask, first, answers, write), _EVENTS)

    async def _infer_request(self, visit: Visit) -> tuple[InferRequest, Form]:
        model, version = _named(visit)
        body = await visit.body()
        header = visit.request.headers.get(infer_answer.JSON_SIZE)
        if header is None:
            return infer_request.read(body, model, version)
        json_size = infer_request.json_size_of(header, body)
        if json_size:
            return infer_request.read(body, model, version, json_size)
        metadata = await self._signatures.of(model, version, visit.call)
        return raw_request.read(body, model, version, metadata), AS_BINARY

    async def _generate_request(self, visit: Visit) -> InferRequest:
        model, version = _named(visit)
        body = await visit.body()
        return generate.read(
            body, model, version, await self._signatures.of(model, version, visit.call)
        )

    async def _generate(self, visit: Visit) -> Answer:
        """Takes exactly one answer, so a model that could give several may be called if it gives
        one.
        """
        ask, found = await self._generate_request(visit), list[Answered]()
        async with aclosing(self._calls.stream(ask, _bounded(visit))) as answers:
            async for answered in answers:
                if answered.outputs or (answered.final and not found):
                    found.append(answered)
                if len(found) > 1:
                    raise NotImplementedHere(
                        "the model gives several answers to one request; call generate_stream"
                    )
        return Answer(200, generate.write(ask, found[0]))


def _named(visit: Visit) -> tuple[str, str]:
    variables = visit.match.variables
    return variables["model_name"], variables.get("model_version", "")


def _bounded(visit: Visit) -> CallContext:
    """The call, which may stay open for as long as a stream, bounded as any request for a model
    is.
    """
    call = visit.call
    latest = time.monotonic() + visit.limits.max_deadline_seconds
    call.deadline = latest if call.deadline is None else min(call.deadline, latest)
    return call


async def _events(
    ask: InferRequest,
    first: Answered,
    rest: AsyncGenerator[Answered],
    write: Callable[[InferRequest, Answered], bytes],
) -> AsyncGenerator[bytes]:
    """One event for each answer and, should it fail, one for the error."""
    async with aclosing(rest):
        try:
            if _is_told(ask, first):
                yield b"data: " + write(ask, first) + b"\n\n"
            async for answered in rest:
                if _is_told(ask, answered):
                    yield b"data: " + write(ask, answered) + b"\n\n"
        except ServiceError as error:
            yield b"data: " + http_status.inference_body(error) + b"\n\n"


def _is_told(ask: InferRequest, answered: Answered) -> bool:
    """An end without outputs is told to those who asked for it."""
    return bool(answered.outputs) or ask.empty_final or not answered.final
