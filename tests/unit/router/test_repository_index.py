"""What the index says of stored models: the newest version, what is loaded, and why something is
not.
"""

from __future__ import annotations

from typing import Any

from services.router.fleet.registry import FAILED, LOADING, READY, Member
from services.router.open_inference.repository_index import StoredModels, entries, loaded, memory
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.router.v1 import router_service_pb2 as router


def version(model: str, number: int, bucket: str = "default") -> str:
    return f"buckets/{bucket}/models/{model}/versions/{number}"


def served(name: str, state: Any = READY, **fields: Any) -> router.ServedModel:
    return router.ServedModel(
        key=fields.pop("key", name), model_version=name, state=state, **fields
    )


def member(name: str, *models: router.ServedModel, **fields: Any) -> Member:
    return Member(
        router.Runtime(name=f"runtimes/{name}", instance=name, models=models, **fields), 0.0
    )


def model(name: str, latest: int, bucket: str = "default") -> repository.Model:
    return repository.Model(name=f"buckets/{bucket}/models/{name}", latest_version=latest)


def shown(
    models: list[repository.Model], *members: Member, ready: bool = False
) -> list[tuple[str, str, str, str]]:
    return [
        (e.name, e.version, e.state, e.reason)
        for e in entries(models, loaded(members), ready=ready)
    ]


def test_what_is_stored_and_not_loaded_has_no_state() -> None:
    assert shown([model("iris", 3), model("wine", 1, "team")]) == [
        ("iris", "3", "", ""),
        ("team:wine", "1", "", ""),
    ]


def test_loaded_versions_stand_beside_the_newest() -> None:
    found = shown(
        [model("iris", 10)],
        member("a", served(version("iris", 2)), served(version("iris", 9), LOADING)),
    )

    assert found == [
        ("iris", "2", "READY", ""),
        ("iris", "9", "LOADING", ""),
        ("iris", "10", "", ""),
    ]


def test_the_best_state_of_all_runtimes_counts() -> None:
    failed = served(version("iris", 1), FAILED, error="it holds code")
    runtimes = [
        member("a", failed),
        member("b", served(version("iris", 1), LOADING)),
        member("c", failed),
    ]

    assert shown([model("iris", 1)], *runtimes) == [("iris", "1", "LOADING", "")]
    assert shown([model("iris", 1)], runtimes[0]) == [("iris", "1", "UNAVAILABLE", "it holds code")]


def test_runtimes_that_take_no_work_do_not_count() -> None:
    found = shown([model("iris", 1)], member("a", served(version("iris", 1)), draining=True))

    assert found == [("iris", "1", "", "")]


def test_only_those_that_answer_are_shown_if_asked_so() -> None:
    runtime = member("a", served(version("iris", 1)), served(version("wine", 1), LOADING))

    assert shown([model("iris", 2), model("wine", 1)], runtime, ready=True) == [
        ("iris", "1", "READY", "")
    ]


def test_models_that_are_not_listed_are_not_shown() -> None:
    assert shown([], member("a", served(version("secret", 1, "team")))) == []


def test_a_version_under_two_requirements_is_in_a_runtimes_memory_once() -> None:
    name = version("iris", 1)
    twice = member(
        "a", served(name, key="x", memory_bytes=10), served(name, key="y", memory_bytes=12)
    )

    assert memory([twice, member("b", served(name, memory_bytes=5))], name) == 17
    assert memory([twice], version("iris", 2)) == 0


class Pages:
    """A repository that gives one thing a page."""

    async def ListBuckets(self, request: Any, timeout: float) -> repository.ListBucketsResponse:
        place = int(request.page_token or 0)
        buckets = [repository.Bucket(name=f"buckets/b{place}")]
        return repository.ListBucketsResponse(
            buckets=buckets, next_page_token="" if place == 2 else str(place + 1)
        )

    async def ListModels(self, request: Any, timeout: float) -> repository.ListModelsResponse:
        place = int(request.page_token or 0)
        models = [repository.Model(name=f"{request.parent}/models/m{place}")]
        return repository.ListModelsResponse(
            models=models, next_page_token="" if place == 1 else str(place + 1)
        )


async def test_listings_are_read_to_their_last_page() -> None:
    catalogue = StoredModels(Pages())

    assert await catalogue.buckets() == ["b0", "b1", "b2"]
    assert [m.name for m in await catalogue.models("b1")] == [
        "buckets/b1/models/m0",
        "buckets/b1/models/m1",
    ]
