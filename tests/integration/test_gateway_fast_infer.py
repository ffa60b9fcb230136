"""The fast way of inference answers as the slow one does, whatever is asked, alone and in crowds.

The same request goes both ways: one with a query, which the route ignores, is left to the handlers.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2
from stellwerk.wire import errors, tensors
from tests.fakes.upstreams import API_KEY
from tests.integration.gateway import Gateway, running, wait_for

FAST, SLOW = "/v2/models/{}/infer", "/v2/models/{}/infer?slow"


async def scripted(call: call_service_pb2.Call, context: Any) -> work_pb2.WorkReply:
    """Answers by the first element: an error, after a while, or twice every input."""
    first = float(tensors.to_numpy(call.work.inputs[0]).ravel()[0])
    if call.model == "none":
        raise errors.ModelNotFound("there is no such model")
    if first == 13:
        raise errors.ModelFailed("it broke")
    if first == 7:
        await asyncio.Event().wait()
    outputs = [
        tensors.from_numpy(f"{t.name}_out", tensors.to_numpy(t) * 2) for t in call.work.inputs
    ]
    if first == 5:
        outputs.append(tensors.from_numpy("label", tensors.np.array([b"\xff"], dtype=object)))
    return work_pb2.WorkReply(outputs=outputs)


def body(first: float, datatype: str = "FP32", **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": datatype, "data": [first, 2]}
    return json.dumps({**more, "inputs": [tensor]}).encode()


def binary(first: int) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": "x",
        "shape": [1, 2],
        "datatype": "INT32",
        "parameters": {"binary_data_size": 8},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    data = first.to_bytes(4, "little") + bytes(4)
    return head + data, {"inference-header-content-length": str(len(head))}


# What is asked: the model, the body, and more headers.
BINARY = binary(1)
ASKED: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "plain": ("m", body(1.5), {}),
    "whole numbers": ("m", body(3, "INT64"), {}),
    "with an id": ("m", body(1.5, id="7"), {}),
    "binary": ("m", *BINARY),
    "fails in the model": ("m", body(13), {}),
    "has an output without a JSON form": ("m", body(5), {}),
    "of no model": ("none", body(1), {}),
    "late": ("m", body(7), {"x-request-timeout": "0.3"}),
    "without a token": ("m", body(1.5), {"authorization": "Bearer x.y.z"}),
    "with numbers that do not fit": ("m", body(1e300), {}),
    "with a text": ("m", body(1.5).replace(b"1.5", b'"a"'), {}),
    "compressed": ("m", body(1.5), {"accept-encoding": "gzip"}),
    "with an API key": ("m", body(1.5), {"authorization": f"Bearer {API_KEY}"}),
    "with an API key that nobody has": (
        "m",
        body(1.5),
        {"authorization": f"bearer swk_{'f' * 16}_{'z' * 43}"},
    ),
    "with its time over": ("m", body(1.5), {"x-request-timeout": "0.001"}),
}


@dataclass
class Caller:
    """A caller with one token, since each new one would make another head."""

    gateway: Gateway
    bearer: dict[str, str]

    async def ask(self, path: str, kind: str, number: int = 0) -> httpx.Response:
        model, data, headers = ASKED[kind]
        given = {
            "accept-encoding": "",
            "content-type": "application/json",
            **self.bearer,
            "x-request-id": f"{kind.replace(' ', '-')}-{number}",
            **headers,
        }
        return await self.gateway.http.post(path.format(model), content=data, headers=given)

    def sample(self, name: str, **labels: str) -> float:
        return self.gateway.process.metrics.get_sample_value(name, labels) or 0.0

    @property
    def served_fast(self) -> float:
        return self.sample("stellwerk_infer_skeletons_total", result="hit")


@pytest.fixture
async def caller() -> Any:
    async with running(compress_from_bytes=10) as made:
        made.upstreams.answer("Call", scripted)
        yield Caller(made, made.bearer())


def told(response: httpx.Response) -> tuple[Any, ...]:
    """The response without what is another at each time: the date, and seconds that were left."""
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "date"]
    return response.status_code, headers, re.sub(rb"[0-9.]+ s", b"", response.content)


@pytest.mark.parametrize("kind", ASKED)
async def test_both_ways_answer_alike(caller: Caller, kind: str) -> None:
    slow = [await caller.ask(SLOW, kind) for _ in range(3)]
    fast = [await caller.ask(FAST, kind) for _ in range(3)]
    crowd = await asyncio.gather(*(caller.ask(FAST, kind) for _ in range(20)))

    assert {str(told(response)) for response in [*slow, *fast, *crowd]} == {str(told(slow[0]))}


async def test_a_mixed_crowd_is_answered_one_by_one(caller: Caller) -> None:
    expected = {kind: told(await caller.ask(SLOW, kind)) for kind in ASKED}
    for kind in ASKED:
        await asyncio.gather(*(caller.ask(FAST, kind) for _ in range(2)))
    before = caller.served_fast

    asked = [(kind, number) for number in range(12) for kind in ASKED]
    answers = await asyncio.gather(*(caller.ask(FAST, *each) for each in asked))

    for (kind, number), answer in zip(asked, answers, strict=True):
        assert answer.headers["x-request-id"] == f"{kind.replace(' ', '-')}-{number}"
        answer.headers["x-request-id"] = f"{kind.replace(' ', '-')}-0"
        assert told(answer) == expected[kind], kind
    assert caller.served_fast - before >= 12 * 7


async def test_a_known_key_takes_the_fast_way_and_an_unknown_one_beside_it_does_not(
    caller: Caller,
) -> None:
    for _ in range(3):
        await caller.ask(FAST, "with an API key")
    before, exchanges = caller.served_fast, caller.gateway.upstreams.exchanges

    kinds = ["with an API key", "with an API key that nobody has"] * 5
    answers = [await caller.ask(FAST, kind) for kind in kinds]

    assert [answer.status_code for answer in answers] == [200, 401] * 5
    assert caller.served_fast - before == 5
    assert caller.gateway.upstreams.exchanges == exchanges == 1


async def test_who_goes_away_is_not_worked_for(caller: Caller) -> None:
    for _ in range(2):
        await caller.ask(FAST, "late")
    before = len(caller.gateway.upstreams.cancelled)
    _, data, _ = ASKED["late"]
    _, writer = await asyncio.open_connection("127.0.0.1", caller.gateway.http_port)
    token = caller.bearer["authorization"]
    head = (
        f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    calls = len(caller.gateway.upstreams.calls)
    writer.write(head.encode() + data)
    await wait_for(lambda: len(caller.gateway.upstreams.calls) > calls)
    writer.close()

    await wait_for(lambda: len(caller.gateway.upstreams.cancelled) > before)
    labels = {"method": "POST", "route": "/v2/models/{model_name}/infer", "status": "499"}
    await wait_for(lambda: caller.sample("stellwerk_http_requests_total", **labels))
    assert (await caller.ask(FAST, "plain")).status_code == 200


async def test_pipelined_requests_are_answered_in_their_order(caller: Caller) -> None:
    for _ in range(2):
        await caller.ask(FAST, "plain")
    token = caller.bearer["authorization"]
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.gateway.http_port)
    for number in range(8):
        data = body(number / 2 + 20)
        writer.write(
            f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n"
            f"x-request-id: r-{number}\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            + data
        )
    got = []
    for _ in range(8):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        size = re.search(rb"content-length: (\d+)", head)
        id = re.search(rb"x-request-id: (\S+)", head)
        assert size is not None
        assert id is not None
        answer = json.loads(await reader.readexactly(int(size[1])))
        got.append((id[1].decode(), answer["outputs"][0]["data"][0]))
    writer.close()

    assert got == [(f"r-{number}", number + 40.0) for number in range(8)]
