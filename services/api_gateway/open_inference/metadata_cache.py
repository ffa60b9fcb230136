"""What models take and give, asked of the router and kept for a moment, for requests that do not
say it themselves.

Kept by caller: what one may see says nothing of another.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from services.chassis.context import CallContext
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.permissions import INFERENCE_SERVICE

_MODEL_METADATA = f"/{INFERENCE_SERVICE}/ModelMetadata"
# An alias may move, a model may be replaced.
KEEP_SECONDS = 5.0
_MAX_KEPT = 4096

# Calls a unary RPC for the current call: full method and request in, answer out.
Unary = Callable[[str, bytes], Awaitable[bytes]]


class Signatures:
    """Metadata of models by name."""

    def __init__(self, unary: Unary, clock: Callable[[], float] = time.monotonic) -> None:
        self._unary, self._clock = unary, clock
        self._kept: dict[tuple[str, str, str], tuple[float, inference.ModelMetadataResponse]] = {}

    async def of(
        self, model: str, version: str, call: CallContext
    ) -> inference.ModelMetadataResponse:
        """The metadata of a model for this caller. Raises what the router raises, such as
        ModelNotFound.
        """
        key = (call.token, model, version)
        until, metadata = self._kept.get(key, (0.0, None))
        if metadata is not None and self._clock() < until:
            return metadata
        request = inference.ModelMetadataRequest(name=model, version=version)
        data = await self._unary(_MODEL_METADATA, request.SerializeToString())
        metadata = inference.ModelMetadataResponse.FromString(data)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[key] = (self._clock() + KEEP_SECONDS, metadata)
        return metadata
