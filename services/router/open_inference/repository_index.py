"""Makes the repository index: the stored models, each with its state in the fleet. Pure but for the
listing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.router.fleet.registry import FAILED, LOADING, READY, Member
from stellwerk.inference.v2 import grpc_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.wire.names import inference_name, parse_model

# Entries of one page of a listing, and seconds that the repository has for it.
_PAGE = 1000
_PAGE_SECONDS = 5.0
# The protocol's words for a version's states. The first of them counts if runtimes differ.
_STATES = {READY: "READY", LOADING: "LOADING", FAILED: "UNAVAILABLE"}
_RANK = {state: rank for rank, state in enumerate(_STATES)}

# The state that runtimes report of a version, by its resource name.
Loaded = Mapping[str, router.ServedModel]
ModelIndex = messages.RepositoryIndexResponse.ModelIndex


class StoredModels:
    """Lists the buckets and models in the repository."""

    def __init__(self, stub: Any) -> None:
        """Asks the repository through `stub`."""
        self._stub = stub

    async def buckets(self) -> list[str]:
        """Returns the ids of all buckets."""
        request = repository.ListBucketsRequest(page_size=_PAGE)
        found: list[str] = []
        while True:
            page = await self._stub.ListBuckets(request, timeout=_PAGE_SECONDS)
            found += [bucket.name.removeprefix("buckets/") for bucket in page.buckets]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def models(self, bucket: str) -> list[repository.Model]:
        """Returns a bucket's models. Raises BucketNotFound."""
        request = repository.ListModelsRequest(parent=f"buckets/{bucket}", page_size=_PAGE)
        found: list[repository.Model] = []
        while True:
            page = await self._stub.ListModels(request, timeout=_PAGE_SECONDS)
            found += page.models
            request.page_token = page.next_page_token
            if not request.page_token:
                return found


def loaded(members: Iterable[Member]) -> Loaded:
    """Returns what runtimes report of each version: of several reports the one in the best state,
    then with the largest footprint.
    """
    best: dict[str, router.ServedModel] = {}
    for member in members:
        for model in member.runtime.models if member.usable else ():
            known = best.get(model.model_version)
            if model.state in _RANK and (known is None or _order(model) < _order(known)):
                best[model.model_version] = model
    return best


def _order(model: router.ServedModel) -> tuple[int, int]:
    return _RANK[model.state], -model.memory_bytes


def memory(members: Iterable[Member], version: str) -> int:
    """Returns the bytes that a version takes in all runtimes together. A runtime that serves it
    under several requirements has it in memory once.
    """
    return sum(
        max(
            (
                model.memory_bytes
                for model in member.runtime.models
                if model.model_version == version
            ),
            default=0,
        )
        for member in members
    )


def entries(models: Iterable[repository.Model], served: Loaded, *, ready: bool) -> list[ModelIndex]:
    """Returns an entry for each model's newest version and for each other version that is loaded,
    sorted by version; with `ready` only for those that answer now.
    """
    by_model: dict[str, dict[int, router.ServedModel]] = {}
    for name, state in served.items():
        parsed = parse_model(name)
        if parsed.version is not None:
            by_model.setdefault(parsed.parent, {})[parsed.version] = state
    found = []
    for model in models:
        states = by_model.get(model.name, {})
        name = inference_name(parse_model(model.name))
        for version in sorted({model.latest_version, *states}):
            entry = _entry(name, version, states.get(version))
            if not ready or entry.state == _STATES[READY]:
                found.append(entry)
    return found


def _entry(name: str, version: int, served: router.ServedModel | None) -> ModelIndex:
    if served is None:
        return ModelIndex(name=name, version=str(version))
    reason = served.error if served.state == FAILED else ""
    return ModelIndex(name=name, version=str(version), state=_STATES[served.state], reason=reason)
