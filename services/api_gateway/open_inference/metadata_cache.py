"""Keeps models' metadata for a few seconds, for requests that do not describe their own tensors.

Entries are kept by caller: what one caller may see says nothing of another.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from cachetools import TTLCache

from services.chassis.context import CallContext
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.permissions import INFERENCE_SERVICE

_MODEL_METADATA = f"/{INFERENCE_SERVICE}/ModelMetadata"
# Seconds for which metadata are kept: a moved alias or a new version is seen after 5 s at most.
KEEP_SECONDS = 5.0
# Entries of the cache, one for each caller, model and version.
_MAX_ENTRIES = 4096

# Calls a unary RPC for the current call: full method and request, returns the response.
Unary = Callable[[str, bytes], Awaitable[bytes]]


class MetadataCache:
    """Models' metadata by caller, model and version."""

    def __init__(self, unary: Unary, clock: Callable[[], float] = time.monotonic) -> None:
        self._unary = unary
        self._cache: TTLCache[tuple[str, str, str], inference.ModelMetadataResponse] = TTLCache(
            _MAX_ENTRIES, KEEP_SECONDS, timer=clock
        )

    async def get(
        self, model: str, version: str, call: CallContext
    ) -> inference.ModelMetadataResponse:
        """Returns a model's metadata for this caller. Raises the router's error, such as
        ModelNotFound.
        """
        key = (call.token, model, version)
        metadata = self._cache.get(key)
        if metadata is None:
            request = inference.ModelMetadataRequest(name=model, version=version)
            data = await self._unary(_MODEL_METADATA, request.SerializeToString())
            metadata = inference.ModelMetadataResponse.FromString(data)
            self._cache[key] = metadata
        return metadata
