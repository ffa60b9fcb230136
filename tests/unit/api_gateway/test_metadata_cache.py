"""What models take and give, asked once in a while and for each caller."""

from __future__ import annotations

import pytest

from services.api_gateway.open_inference.metadata_cache import KEEP_SECONDS, MetadataCache
from services.chassis.context import CallContext
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.errors import ModelNotFound


class Router:
    """Answers with the number of times it was asked, as the platform."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.now = 0.0

    async def unary(self, method: str, data: bytes) -> bytes:
        assert method == "/inference.GRPCInferenceService/ModelMetadata"
        request = inference.ModelMetadataRequest.FromString(data)
        if request.name == "nope":
            raise ModelNotFound("there is no such model")
        self.asked.append((request.name, request.version))
        return inference.ModelMetadataResponse(platform=str(len(self.asked))).SerializeToString()


def caller(token: str) -> CallContext:
    return CallContext("", "1", token=token)


async def test_a_caller_asks_once_in_a_while() -> None:
    router = Router()
    cache = MetadataCache(router.unary, lambda: router.now)

    first = await cache.get("m", "", caller("a"))
    again = await cache.get("m", "", caller("a"))
    router.now += KEEP_SECONDS
    later = await cache.get("m", "", caller("a"))

    assert (first.platform, again.platform, later.platform) == ("1", "1", "2")


async def test_callers_and_versions_are_kept_apart() -> None:
    router = Router()
    cache = MetadataCache(router.unary)

    for version, token in [("", "a"), ("1", "a"), ("", "b"), ("", "a")]:
        await cache.get("m", version, caller(token))

    assert router.asked == [("m", ""), ("m", "1"), ("m", "")]


async def test_a_model_that_is_not_there_is_asked_for_again() -> None:
    cache = MetadataCache(Router().unary)

    for _ in range(2):
        with pytest.raises(ModelNotFound):
            await cache.get("nope", "", caller("a"))
