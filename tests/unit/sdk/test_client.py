"""The resources of the SDK, each test over HTTP and gRPC, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stellwerk.client import AsyncClient, connect, errors
from stellwerk.client.errors import ServiceError
from tests.unit.sdk.fake_platform import API_KEY, FakePlatform
from tests.unit.sdk.settled import settled


async def test_a_model_is_put_called_and_got_back(client: Any, pipeline: Any, iris: Any) -> None:
    stored = await settled(
        client.models.put(pipeline, "iris", labels={"stage": "test"}, description="flowers")
    )
    model = client.runtime.model("iris")

    predicted = await settled(model.predict(iris.data))
    probabilities = await settled(model.predict_proba(iris.data))
    score = await settled(model.score(iris.data, iris.target))
    loaded = await settled(client.models.get("iris"))

    assert stored.name == "buckets/default/models/iris/versions/1"
    assert dict(stored.labels) == {"stage": "test"}
    np.testing.assert_array_equal(predicted, pipeline.predict(iris.data))
    np.testing.assert_array_equal(probabilities, pipeline.predict_proba(iris.data))
    assert predicted.dtype == np.int64 and predicted.flags.writeable
    assert score == pipeline.score(iris.data, iris.target)
    np.testing.assert_array_equal(loaded.predict(iris.data), predicted)


async def test_lists_and_frames_are_taken_like_arrays(
    client: Any, pipeline: Any, iris: Any
) -> None:
    await settled(client.models.put(pipeline, "iris"))
    model = client.runtime.model("iris")
    rows = iris.data[:3]

    from_list = await settled(model.predict(rows.tolist()))
    from_frame = await settled(model.predict(pd.DataFrame(rows)))

    np.testing.assert_array_equal(from_list, from_frame)


async def test_errors_are_the_platforms_own_classes(client: Any) -> None:
    with pytest.raises(errors.ModelNotFound) as caught:
        await settled(client.models.describe("nosuch"))

    assert caught.value.message == "there is no model buckets/default/models/nosuch"
    assert caught.value.metadata == {"model": "buckets/default/models/nosuch"}


async def test_a_listing_is_followed_to_its_last_page(
    client: Any, platform: FakePlatform, pipeline: Any
) -> None:
    stored = await settled(client.models.put(pipeline, "m0"))
    for number in range(1, 1003):
        platform.versions[f"buckets/default/models/m{number}"] = [stored]

    everything = await settled(client.models.list())
    some = await settled(client.models.list(limit=3))

    assert len(everything) == 1003
    assert len(some) == 3


async def test_an_alias_is_moved_by_compare_and_set(
    client: Any, platform: FakePlatform, pipeline: Any
) -> None:
    await settled(client.models.put(pipeline, "iris", alias="production"))
    await settled(client.models.put(pipeline, "iris"))

    moved = await settled(client.models.promote("iris", 2))

    assert (moved.version, moved.etag) == (2, "2")
    assert (await settled(client.models.describe("iris", alias="production"))).version == 2
    with pytest.raises(errors.Conflict):
        await settled(client.models.promote("iris", 1, etag="1"))
    assert platform.aliases["buckets/default/models/iris/aliases/production"].version == 2


async def test_calls_carry_what_the_scope_requires(
    client: Any, platform: FakePlatform, pipeline: Any
) -> None:
    await settled(client.models.put(pipeline, "iris"))
    scope = client.runtime.require(gpu=1, label="zone=west").require(memory="2GiB")

    await settled(scope.model("iris").predict([[1, 2, 3, 4]]))

    (requires,) = platform.requires
    assert (requires.accelerator_count, requires.accelerator_kind) == (1, "cuda")
    assert requires.memory_bytes == 2 << 30
    assert dict(requires.labels) == {"zone": "west"}


async def test_reads_are_repeated_when_a_service_is_away(
    client: Any, platform: FakePlatform
) -> None:
    platform.failures = [
        errors.Unavailable("away", retry_after_ms=1),
        errors.NoRuntimeAvailable("none", retry_after_ms=1),
    ]

    assert len(await settled(client.runtimes())) == 1
    assert platform.calls == ["ListRuntimesRequest"] * 3


async def test_reads_are_given_up_after_three_attempts(client: Any, platform: FakePlatform) -> None:
    platform.failures = [errors.Unavailable("away", retry_after_ms=1) for _ in range(5)]

    with pytest.raises(errors.Unavailable, match="away"):
        await settled(client.runtimes())
    assert len(platform.calls) == 3


async def test_changes_are_never_repeated(client: Any, platform: FakePlatform) -> None:
    platform.failures = [errors.Unavailable("away", retry_after_ms=1)]

    with pytest.raises(errors.Unavailable):
        await settled(client.buckets.create("team"))
    assert platform.calls == ["CreateBucketRequest"]


async def test_a_wait_longer_than_the_time_left_is_not_waited_for(
    client: Any, platform: FakePlatform
) -> None:
    platform.failures = [errors.Unavailable("away", retry_after_ms=60_000)]

    with pytest.raises(errors.Unavailable) as caught:
        await settled(client.runtimes())
    assert caught.value.retry_after == 60_000
    assert len(platform.calls) == 1


async def test_a_name_that_means_another_version_now_is_looked_up_anew(
    client: Any, pipeline: Any, iris: Any, platform: FakePlatform
) -> None:
    await settled(client.models.put(pipeline, "iris"))
    model = client.runtime.model("iris")
    await settled(model.predict(iris.data))
    single = iris.data.astype(np.float32)
    await settled(client.models.put(pipeline, "iris", example=single))

    predicted = await settled(model.predict(single))

    np.testing.assert_array_equal(predicted, pipeline.predict(iris.data))


async def test_a_download_is_written_whole_or_not_at_all(
    client: Any, platform: FakePlatform, pipeline: Any, tmp_path: Path
) -> None:
    stored = await settled(client.models.put(pipeline, "iris"))
    seen: list[tuple[int, int]] = []
    path = await settled(
        client.models.download(
            "iris", tmp_path / "iris.skops", progress=lambda *at: seen.append(at)
        )
    )
    platform.artifacts[stored.name] = b"something else"

    with pytest.raises(errors.Corrupt):
        await settled(client.models.download("iris", tmp_path / "again.skops"))

    assert path.stat().st_size == stored.size_bytes
    assert seen[-1] == (stored.size_bytes, stored.size_bytes)
    assert os.listdir(tmp_path) == ["iris.skops"]


async def test_a_file_is_stored_as_it_is(
    client: Any, platform: FakePlatform, pipeline: Any, tmp_path: Path
) -> None:
    from stellwerk.client.packaging import estimator

    path = estimator.package(pipeline, tmp_path).path
    seen: list[tuple[int, int]] = []

    stored = await settled(
        client.models.put(path, "team/iris", progress=lambda *at: seen.append(at))
    )

    assert stored.name == "buckets/team/models/iris/versions/1"
    assert platform.artifacts[stored.name] == path.read_bytes()
    assert seen[-1] == (stored.size_bytes, stored.size_bytes)


async def test_an_upload_without_content_is_answered(
    client: Any, platform: FakePlatform, tmp_path: Path
) -> None:
    path = tmp_path / "empty.bin"
    path.touch()

    stored = await settled(client.models.put(path, "empty", format="custom"))

    assert platform.artifacts[stored.name] == b""


async def test_status_and_audit_answer(client: Any) -> None:
    assert list((await settled(client.status())).reasons) == ["every runtime is draining"]
    assert (await settled(client.audit.verify())).intact
    assert (await settled(client.access.caller())).principal == "principals/anna"


async def test_hostile_names_are_refused_before_anything_is_sent(
    client: Any, platform: FakePlatform
) -> None:
    for name in ["../secrets", "a/b/c", "iris?x=1", "", "iris/versions/1", "x" * 64]:
        with pytest.raises(errors.InvalidInput):
            await settled(client.models.describe(name))
    assert platform.calls == []


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_nothing_at_the_address_is_unavailable_with_the_address(
    scheme: str, unused_tcp_port: int
) -> None:
    address = f"{scheme}://127.0.0.1:{unused_tcp_port}"

    with (
        connect(address, "x", timeout=5) as client,
        pytest.raises(errors.Unavailable, match=f"127.0.0.1:{unused_tcp_port}"),
    ):
        client.runtimes()


async def test_an_api_key_is_sent_like_a_token(http_url: str, platform: FakePlatform) -> None:
    with connect(http_url, API_KEY) as client:
        assert len(client.runtimes()) == 1


async def test_a_wrong_token_is_unauthenticated(http_url: str) -> None:
    with connect(http_url, "a.b.c") as client, pytest.raises(errors.Unauthenticated):
        client.models.list()


async def test_many_calls_of_one_async_client_run_at_once(
    platform: FakePlatform, http_url: str, pipeline: Any, iris: Any
) -> None:
    from stellwerk.client import connect_async

    async with connect_async(http_url, "header.payload.signature") as client:
        assert isinstance(client, AsyncClient)
        await client.models.put(pipeline, "iris")
        model = client.runtime.model("iris")
        results = await asyncio.gather(
            *(model.predict(iris.data[i : i + 5]) for i in range(0, 100, 5))
        )

    np.testing.assert_array_equal(np.concatenate(results), pipeline.predict(iris.data[:100]))


def test_every_platform_error_is_exported_to_callers() -> None:
    from stellwerk.wire.errors import BY_REASON

    for cls in BY_REASON.values():
        assert issubclass(cls, ServiceError)
        assert getattr(errors, cls.__name__) is cls
