"""Serves the usual inference request without a task, by callbacks alone: from a body that is read
by its skeleton to the frame to the router, and from the answer to the response.

What it does not know it leaves untouched to the door and its handlers, which give the same
responses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from services.api_gateway.config import GatewaySettings
from services.api_gateway.http.exchange import HttpExchange, begin_exchange
from services.api_gateway.http.request import HttpRequest
from services.api_gateway.http.response import HttpResponse
from services.api_gateway.open_inference.group_responses import GroupResponses
from services.api_gateway.open_inference.infer_request import JSON_SIZE, json_size_of
from services.api_gateway.open_inference.infer_response import write_response
from services.api_gateway.open_inference.skeletons import ReadBody, Skeletons
from services.api_gateway.routing.routes import Match, RouteTable
from services.api_gateway.upstream.call_stream import CallStream
from services.api_gateway.upstream.replies import GroupReply, ModelReply
from services.chassis import rpc_status
from services.chassis.access.token_verifier import TokenVerifier, bearer
from services.chassis.context import HOP_SECONDS
from stellwerk.wire.errors import Cancelled, ServiceError, from_work_error
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.permissions import INFERENCE_SERVICE

_INFER = f"/{INFERENCE_SERVICE}/ModelInfer"


class _Meaning(NamedTuple):
    """An inference request's route, the model that its path names, and its caller's token, "" of
    one with an API key.
    """

    match: Match
    model: str
    version: str
    token: str


# Ends an exchange with a response or an error; see `http.door.HttpDoor.finish`.
Finish = Callable[[HttpExchange, HttpResponse | ServiceError], None]


class FastInfer:
    """The fast way of inference; see `http.exchange.FastWay`."""

    def __init__(
        self,
        *,
        table: RouteTable,
        verifier: TokenVerifier,
        token_of: Callable[[bytes], str | None],
        skeletons: Skeletons,
        stream: CallStream,
        finish: Finish,
        settings: GatewaySettings,
        log: Any,
    ) -> None:
        self._table = table
        self._verifier = verifier
        self._token_of = token_of
        self._skeletons = skeletons
        self.stream = stream
        self.finish = finish
        self._settings = settings
        self._default_seconds = settings.default_deadline_seconds
        self._most_seconds = settings.max_deadline_seconds
        self._most_bytes = settings.max_body_bytes
        self.log = log

    def __call__(self, request: HttpRequest, body: bytes) -> bool:
        """Serves an inference request whose like was served before; returns False for any other.

        The caller is verified each time, and each request has its own deadline.
        """
        head = request.head
        asked = head.timeout
        seconds = min(self._default_seconds if asked is None else asked, self._most_seconds)
        if len(body) > self._most_bytes or seconds <= HOP_SECONDS or not self.stream.is_open:
            return False
        try:
            # Kept with the head, which is bounded with all known heads; no verdict is in it.
            meaning = head.meaning or self._meaning(request)
            if not isinstance(meaning, _Meaning):
                return False
            token = meaning.token or self._token_of(request.api_key)
            if token is None:
                return False
            given = head.headers.get(JSON_SIZE)
            json_size = None if given is None else json_size_of(given, body)
            principal = self._verifier.verify(token)
        except ServiceError:
            return False
        read = self._skeletons.read(body, meaning.model, meaning.version, json_size)
        if read is None:
            return False
        exchange = begin_exchange(request, self._settings)
        exchange.match = meaning.match
        exchange.route = meaning.match.route.template.text
        call = exchange.call
        call.method = _INFER
        call.token = token
        call.principal = principal
        call.deadline = time.monotonic() + seconds
        _Inference(self, exchange, read).begin(seconds - HOP_SECONDS)
        return True

    def _meaning(self, request: HttpRequest) -> _Meaning | None:
        """Returns what the head of an inference request means, None for any other head. Raises
        ServiceError for a head that the door refuses.
        """
        head = request.head
        match = self._table.find(head.method, head.raw_path)
        if match.route.rpc_name != _INFER or match.route.template.segments[-1] != "infer":
            return None
        model, version = match.variables["model_name"], match.variables.get("model_version", "")
        token = "" if request.api_key else bearer(head.header(b"authorization"))
        meaning = head.meaning = _Meaning(match, model, version, token)
        return meaning


class _Inference:
    """One request on its way; hears of its reply, or that its client is gone."""

    __slots__ = ("_exchange", "_id", "_read", "_way")

    def __init__(self, way: FastInfer, exchange: HttpExchange, read: ReadBody) -> None:
        self._way = way
        self._exchange = exchange
        self._read = read
        self._id = 0

    def begin(self, seconds: float) -> None:
        """Sends the call with `seconds` for the router; an error of this is its response."""
        exchange = self._exchange
        skeleton, _, data = self._read
        try:
            if skeleton.request.timeout_us:
                seconds = min(seconds, skeleton.request.timeout_us / 1e6)
            self._id = self._way.stream.send_member(
                skeleton.form, data, exchange.call, seconds, self
            )
        except ServiceError as error:
            self._way.finish(exchange, error)
            return
        exchange.request.on_gone = self.gone

    def gone(self) -> None:
        """Drops the call, since nobody waits for its response any more."""
        self._way.stream.forget(self._id)
        self._way.finish(self._exchange, Cancelled("the caller went away"))

    def replied_in_group(self, group: GroupReply, index: int) -> None:
        """Sends the response to a member of a group."""
        if group.failed:
            self.failed(from_work_error(group.reply.error))
            return
        skeleton, id, _ = self._read
        try:
            responses = group.shared.get(skeleton)
            if responses is None:
                responses = GroupResponses(skeleton.request, skeleton.outputs, group)
                group.shared[skeleton] = responses
            outcome: HttpResponse | ServiceError = responses.write(index, id)
        except Exception as exc:
            outcome = self._as_service_error(exc)
        self._way.finish(self._exchange, outcome)

    def replied(self, reply: ModelReply) -> None:
        """Sends the response to a call that travelled alone."""
        skeleton, id, _ = self._read
        asked = skeleton.request
        request = InferRequest(asked.model, asked.version, id, asked.work, classes=asked.classes)
        try:
            outcome: HttpResponse | ServiceError = write_response(request, skeleton.outputs, reply)
        except Exception as exc:
            outcome = self._as_service_error(exc)
        self._way.finish(self._exchange, outcome)

    def failed(self, error: ServiceError) -> None:
        """Sends an error as the response."""
        self._way.finish(self._exchange, error)

    def _as_service_error(self, exc: Exception) -> ServiceError:
        """Returns the error that the caller gets; what is our fault is written to the log."""
        error = rpc_status.as_service_error(exc, self._exchange.call.request_id)
        if error is not exc:
            self._way.log.error("unexpected_error", method=_INFER, exc_info=exc)
        return error
