"""Groups that no honest router sends: each is refused for itself, and the rest is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime.formats.port import Array, Arrays, LoadedModel
from stellwerk.job.v1 import work_pb2
from stellwerk.wire.tensors import to_numpy
from tests.fakes import models
from tests.fakes.grouped_work import Batch, Call, Form, envelope
from tests.fakes.runtime_inside import rig


class Doubling(LoadedModel):
    """Doubles X."""

    device, memory_bytes = "cpu", 1

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        return {"y": 2 * inputs["X"]}  # type: ignore[operator]

    def close(self) -> None: ...


SENSELESS = st.builds(
    work_pb2.WorkGroup,
    id=st.sampled_from(["", "a", "b"]),
    form=st.builds(
        work_pb2.WorkItem,
        method=st.sampled_from(["predict", "", "fly"]),
        inputs=st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["X", "Z", ""]),
                    "datatype": st.sampled_from(["FP64", "BYTES", "INT8", "BF16", "", "STRANGE"]),
                    "shape": st.lists(st.sampled_from([-1, 0, 1, 2, 2**40, 2**62]), max_size=3),
                    "data": st.binary(max_size=40),
                }
            ),
            max_size=2,
        ),
        stream=st.booleans(),
        outputs=st.lists(st.sampled_from(["y", ""]), max_size=2),
    ),
    timeouts_ms=st.sampled_from([[], [1], [0, 60_000], [2**32 - 1] * 257]),
    request_ids=st.lists(st.text(max_size=3), max_size=3),
    traceparents=st.lists(st.sampled_from(["", "00-nothing"]), max_size=2),
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(SENSELESS, min_size=1, max_size=4))
def test_groups_without_sense_are_refused_and_harm_nobody(
    tmp_path: Path, senseless: list[work_pb2.WorkGroup]
) -> None:
    async def sent() -> None:
        async with rig(tmp_path, model=Doubling()) as made:
            version = made.add(models.version("skops"))
            await made.serve(version)
            for number, each in enumerate(senseless):
                each.id += str(number)
            calls = [Batch(Form(), [Call(1), Call(2)])]

            await made.ask_all(version, work_pb2.WorkEnvelope(groups=senseless))
            replies = await made.ask_all(version, envelope(calls, "g", grouped=True)[0])

            answers = [to_numpy(reply.outputs[0]).tolist() for reply in replies]
            assert answers == [[[2.0, 2.0]], [[4.0, 4.0]]]
            await asyncio.wait_for(made.consumer.idle(), 5)
            assert made.consumer.in_flight == 0 and not made.log.errors

    asyncio.run(sent())
