"""Answers that were given before, to requests whose model's owner wants them given again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from services.runtime.replies.response_cache import Outputs, ResponseCache, cache_key
from services.runtime.requests.request import Request
from stellwerk.job.v1 import work_pb2


class Recall:
    """Looks requests up before a call, and keeps what a call answered."""

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache

    def find(self, request: Request) -> tuple[Outputs, int] | None:
        """The answer that is kept, and the nanoseconds it took to find it."""
        begun = time.perf_counter_ns()
        form = request.form
        request.key = cache_key(
            request.work.lane.name, form.method.name, form.outputs, request.item.inputs
        )
        outputs = self._cache.get(request.key)
        return (outputs, time.perf_counter_ns() - begun) if outputs is not None else None

    def keep(self, requests: Sequence[Request], frames: Sequence[bytes]) -> None:
        """Keeps the answers to these requests, given as their replies. What looked nothing up keeps
        nothing.
        """
        for request, frame in zip(requests, frames, strict=True):
            if request.key:
                (reply,) = work_pb2.WorkReplyEnvelope.FromString(frame).replies
                self._cache.put(request.key, tuple(reply.outputs), len(frame))
