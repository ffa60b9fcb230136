"""Replies of models as callers get them, one by one or several in a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import Internal, InvalidInput, ServiceError, from_work_error


@dataclass(slots=True)
class ModelReply:
    """One reply of a model: the resource name of the version that gave it, and its outputs.

    `final` marks a request's last reply, which alone may have no outputs.
    """

    model_version: str
    outputs: Sequence[tensor_pb2.Tensor]
    final: bool


class GroupReply:
    """One answer to `count` calls of a form: the outputs of all, end to end, or one error."""

    __slots__ = ("_parts", "count", "model_version", "reply", "shared")

    def __init__(self, answer: messages.AnswerGroup) -> None:
        self.count = len(answer.ids)
        self.model_version = answer.model_version
        self.reply = answer.reply
        # What callers that asked in the same way make of the answer together, by what they asked.
        self.shared: dict[Any, Any] = {}
        # The data of each output's members, taken apart when the first of them is asked for.
        self._parts: list[list[bytes]] | None = None

    @property
    def failed(self) -> bool:
        """Returns whether the answer is an error."""
        return self.reply.HasField("error")

    def parts(self) -> list[list[bytes]]:
        """Returns the data of each output's members. Raises Internal if they do not fit."""
        if self._parts is None:
            try:
                self._parts = [columns.split(tensor, self.count) for tensor in self.reply.outputs]
            except InvalidInput as exc:
                raise Internal(f"the answer to a group cannot be read: {exc.message}") from None
        return self._parts

    def of(self, index: int) -> ModelReply:
        """Returns the reply to one call. Raises the error that the calls ended with."""
        if self.failed:
            raise from_work_error(self.reply.error)
        outputs = [
            tensor_pb2.Tensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=part[index]
            )
            for tensor, part in zip(self.reply.outputs, self.parts(), strict=True)
        ]
        return ModelReply(self.model_version, outputs, True)


class Caller(Protocol):
    """A party that waits for the replies to one call; hears of each of them, or of one error."""

    def replied(self, reply: ModelReply) -> None:
        """Takes a reply."""

    def replied_in_group(self, group: GroupReply, index: int) -> None:
        """Takes the only reply, which is that of this index in the group."""

    def failed(self, error: ServiceError) -> None:
        """Takes the error that ends the call."""
