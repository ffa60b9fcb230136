"""From queue to reply over a real broker hub and real models: items share a message, never a
fate.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.chassis.broker.port import Delivery
from services.chassis.broker.pull.hub_broker import HubBroker
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.tensors import from_numpy, to_numpy
from stellwerk.wire.topology import inference_queue, serving_key
from tests.fakes import models
from tests.fakes.eventually import eventually
from tests.fakes.runtime_inside import Rig, rig


def iris(
    made: Rig, folder: Path, number: int = 1
) -> tuple[repository_pb2.ModelVersion, Any, np.ndarray[Any, Any]]:
    pipeline, features, _ = models.iris_pipeline()
    signature = models.method(
        "predict", [models.spec("X", "FP64", -1, 4)], [models.spec("predict", "INT64", -1)]
    )
    name = f"buckets/default/models/iris/versions/{number}"
    version = models.version("skops", signature, name=name)
    path = models.save_skops(pipeline, folder / f"{number}.skops")
    return made.repository.add(version, path), pipeline, features


def item(
    name: str, array: np.ndarray[Any, Any], *, method: str = "predict", **fields: Any
) -> work_pb2.WorkItem:
    fields.setdefault("timeout_ms", 15_000)
    return work_pb2.WorkItem(id=name, method=method, inputs=[from_numpy("X", array)], **fields)


async def test_items_of_one_message_are_answered_each_for_itself(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, pipeline, features = iris(made, tmp_path)
        await made.serve(version)

        good, shape, dtype, method, output, again = await made.ask(
            version,
            item("1", features[:3]),
            item("2", features[:3, :2]),
            item("3", features[:3].astype(np.float32)),
            item("4", features[:3], method="fit"),
            item("5", features[:3], outputs=["nothing"]),
            item("6", features[3:5], outputs=["predict"]),
        )

        assert to_numpy(good.outputs[0]).tolist() == pipeline.predict(features[:3]).tolist()
        assert to_numpy(again.outputs[0]).tolist() == pipeline.predict(features[3:5]).tolist()
        assert {reply.error.reason for reply in (shape, dtype, method, output)} == {"INVALID_INPUT"}
        assert good.runtime == "runtimes/r1"
        assert good.compute_ns > 0 and good.queue_ns > 0


async def test_items_that_arrive_together_are_one_model_call(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, pipeline, features = iris(made, tmp_path)
        await made.serve(version)
        await made.ask(version, item("warm", features[:1]))
        before = made.sample("stellwerk_model_batch_items_count", model_version=version.name)

        replies = await made.ask(
            version, *(item(str(row), features[row : row + 1]) for row in range(40))
        )

        expected = pipeline.predict(features[:40]).tolist()
        assert [to_numpy(reply.outputs[0]).tolist()[0] for reply in replies] == expected
        assert (
            made.sample("stellwerk_model_batch_items_count", model_version=version.name)
            == before + 1
        )


async def test_a_hundred_predictions_load_the_model_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)

        for start in range(0, 100, 10):
            await made.ask(version, *(item(f"{start + n}", features[:1]) for n in range(10)))

        assert made.sample("stellwerk_model_loads_total", model_version=version.name) == 1
        assert (
            made.sample("stellwerk_model_calls_total", model_version=version.name, outcome="ok")
            == 100
        )
        assert len(made.repository.downloads) == 1


async def test_a_model_that_was_evicted_is_loaded_again_for_the_next_call(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)
        await made.ask(version, item("1", features[:1]))
        made.cache.discard(version.name)

        (reply,) = await made.ask(version, item("2", features[:1]))

        assert not reply.HasField("error")
        assert made.sample("stellwerk_model_loads_total", model_version=version.name) == 2
        assert len(made.repository.downloads) == 1


async def test_a_caller_does_not_wait_for_a_load_beyond_its_deadline(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)
        made.repository.gate.clear()

        (reply,) = await made.ask(version, item("1", features[:1], timeout_ms=50))
        made.repository.gate.set()
        (next_reply,) = await made.ask(version, item("2", features[:1]))

        assert reply.error.reason == "DEADLINE_PASSED"
        assert not next_reply.HasField("error")
        assert len(made.repository.downloads) == 1


async def test_a_message_that_is_no_envelope_is_logged_rejected_and_harms_nobody(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)

        await made.send(version, b"\xff\xff poison")
        (reply,) = await made.ask(version, item("1", features[:1]))

        assert not reply.HasField("error")
        assert "envelope_unreadable" in made.log.events()
        queue = inference_queue(serving_key(version.name, version.requires)).name
        assert (await made.broker.inspect(queue)).messages == 0


async def test_a_failing_artifact_is_an_error_for_each_item(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        made.repository.artifacts[version.name] = b"other"
        await made.serve(version)

        first, second = await made.ask(version, item("1", features[:1]), item("2", features[:1]))

        assert first.error.reason == second.error.reason == "CORRUPT"


@pytest.mark.parametrize("held", ["load", "reply"])
async def test_nothing_is_acknowledged_before_its_reply_is_out(tmp_path: Path, held: str) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)
        if held == "load":
            made.repository.gate.clear()
            asked = asyncio.create_task(made.ask(version, item("1", features[:1])))
            await eventually(lambda: made.consumer.in_flight > 0)
        else:
            await made.ask(version, item("warm", features[:1]))
            made.broker.gate.clear()
            asked = asyncio.create_task(made.ask(version, item("1", features[:1])))
            calls = {"model_version": version.name, "outcome": "ok"}
            await eventually(lambda: made.sample("stellwerk_model_calls_total", **calls) == 2)
        await made.broker.close()  # the runtime dies with the work in hand
        other = HubBroker(made.hub)
        redelivered: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

        async def take(delivery: Delivery) -> None:
            redelivered.set_result(delivery)

        await other.consume(
            inference_queue(serving_key(version.name, version.requires)), take, prefetch=1
        )

        assert (await asyncio.wait_for(redelivered, 5)).redelivered
        asked.cancel()
        made.repository.gate.set()
        made.broker.gate.set()
        await other.close()


async def test_log_lines_carry_the_callers_request_and_no_data(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)

        context = {
            "x-request-id": "req-7",
            "x-principal": "principals/a",
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        }
        await made.ask(version, item("1", features[:1], context=context))

        lines = dict(made.log.lines)
        fields = lines["model_called"]
        assert fields["request_id"] == lines["model_call"]["request_id"] == "req-7"
        assert fields["trace_id"] == lines["model_call"]["trace_id"] == "a" * 32
        assert set(fields) == {
            "request_id",
            "trace_id",
            "principal",
            "model_version",
            "method",
            "outcome",
            "queue_ms",
            "compute_ms",
            "timeout_ms",
        }


async def test_the_line_of_a_shared_call_joins_all_its_requests(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)

        contexts = [{"x-request-id": f"req-{number}"} for number in range(3)]
        items = [
            item(str(number), features[:1], context=context)
            for number, context in enumerate(contexts)
        ]
        await made.ask(version, *items)

        (fields,) = [fields for event, fields in made.log.lines if event == "model_call"]
        assert fields["request_ids"] == ["req-0", "req-1", "req-2"]
        assert "request_id" not in fields


@pytest.mark.parametrize("timeout_ms", [0, 15_000])
async def test_an_item_without_a_timeout_has_none(tmp_path: Path, timeout_ms: int) -> None:
    async with rig(tmp_path) as made:
        version, _, features = iris(made, tmp_path)
        await made.serve(version)

        (reply,) = await made.ask(version, item("1", features[:1], timeout_ms=timeout_ms))

        assert not reply.HasField("error")
        await asyncio.wait_for(made.consumer.idle(), 5)
