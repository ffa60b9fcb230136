"""Work as it reaches a runtime: items, and requests made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from services.runtime.batching.scheduler import ModelQueue
from services.runtime.formats.port import LoadedModel
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.layouts import RequestLayouts
from services.runtime.requests.members import open_group
from services.runtime.requests.request import Request, WorkMessage
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire import columns
from stellwerk.wire.tensors import from_numpy
from tests.fakes import models


def item(name: str, *arrays: Any, method: str = "predict", **fields: Any) -> work_pb2.WorkItem:
    """An item with inputs x0, x1 and so on; a single one is called x."""
    names = ["x"] if len(arrays) == 1 else [f"x{index}" for index in range(len(arrays))]
    inputs = [
        from_numpy(tensor, np.asarray(array)) for tensor, array in zip(names, arrays, strict=True)
    ]
    return work_pb2.WorkItem(id=name, method=method, inputs=inputs, **fields)


class Inbox:
    """Makes requests of one version, each in a message of its own unless told otherwise."""

    def __init__(
        self,
        version: repository_pb2.ModelVersion | None = None,
        policy: BatchPolicy | None = None,
        *,
        model: LoadedModel | None = None,
        answered: Callable[..., None] = lambda outcome: None,
        emit: Callable[..., None] = lambda request, answer, sent: None,
    ) -> None:
        self.version = version if version is not None else models.version("skops")
        self.policy = policy or BatchPolicy()
        self.layouts = RequestLayouts(self.version, self.policy)
        self.queue = ModelQueue(self.version.name, self.policy, answered=answered, emit=emit)
        self.model = model

    def message(self, received: float | None = None) -> WorkMessage:
        """A message in hand."""
        moment = time.monotonic() if received is None else received
        name = self.version.name
        return WorkMessage(name, "replies", moment, 1, lambda work: None, model=self.model)

    def request(
        self, *arrays: Any, received: float | None = None, name: str = "r", **fields: Any
    ) -> Request:
        """A request with these inputs."""
        work = self.message(received)
        request = self.layouts.admit(item(name, *arrays, **fields), work)
        work.requests.append(request)
        return request

    def rows(self, *values: float, **fields: Any) -> Request:
        """A request with one column of these values."""
        return self.request(np.array(values, dtype=np.float64).reshape(-1, 1), **fields)

    def group(self, *members: Sequence[float], name: str = "g", **fields: Any) -> Request:
        """A request of a group whose members have one column of these values each."""
        received = fields.pop("received", None)
        timeouts = fields.pop("timeouts_ms", [0] * len(members))
        arrays = [np.array(values, dtype=np.float64).reshape(-1, 1) for values in members]
        form = columns.join([item("", column, **fields) for column in arrays])
        work = self.message(received)
        given = work_pb2.WorkGroup(id=name, form=form, timeouts_ms=timeouts)
        group = open_group(given, work.received)
        (request,) = self.layouts.admit_group(group, work, whole=True)
        work.requests.append(request)
        return request
