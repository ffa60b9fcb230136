"""What is read by a skeleton is read as the full reading reads it, byte for byte, or not at all."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api_gateway.open_inference import infer_request
from services.api_gateway.open_inference.skeletons import ReadBody, Skeletons
from services.api_gateway.upstream.call_groups import CallForms
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.tensors import ITEM_SIZES

DATATYPES = [*sorted(ITEM_SIZES), "FP32", "INT64"]
Body = tuple[bytes, int | None]


def read_in_full(body: Body) -> tuple[Any, Any] | None:
    try:
        return infer_request.read_request(body[0], "iris", "3", body[1])
    except ServiceError:
        return None


def learn(skeletons: Skeletons, body: Body) -> None:
    read = read_in_full(body)
    if read is not None:
        skeletons.learn(body[0], *read, body[1])


def same(found: ReadBody, read: tuple[Any, Any]) -> bool:
    request, outputs = read
    skeleton = found.skeleton
    work = request.work
    form = skeleton.form.work
    return (
        list(found.data) == [tensor.data for tensor in work.inputs]
        and found.id == request.id
        and skeleton.outputs == outputs
        and (skeleton.request.timeout_us, skeleton.request.classes)
        == (request.timeout_us, request.classes)
        and (skeleton.form.model, skeleton.form.version) == (request.model, request.version)
        and (work.method, list(work.outputs), work.priority)
        == (form.method, list(form.outputs), form.priority)
        and [(t.name, t.datatype, list(t.shape)) for t in work.inputs]
        == [(t.name, t.datatype, list(t.shape)) for t in form.inputs]
    )


def values_of(datatype: str, count: int, draw: Callable[[Any], Any]) -> list[Any]:
    if datatype == "BOOL":
        element: Any = st.booleans()
    elif datatype.startswith(("FP", "BF")):
        element = st.one_of(st.floats(-100, 100, width=16), st.integers(-9, 9), st.just("NaN"))
    else:
        element = st.integers(0, 100)
    return [draw(element) for _ in range(count)]


EXTRAS: list[dict[str, Any]] = [
    {},
    {"parameters": {"priority": 2, "data": "[1]"}},
    {"parameters": {"timeout": 100}, "outputs": [{"name": "y"}]},
    {"outputs": [{"name": "y", "parameters": {"classification": 2}}]},
    {"data": [1, 2]},
]
IDS = ["a", "b-1", "", 'q"', "ü", "x" * 300]
SPECS = st.tuples(
    st.sampled_from(["x", "data", '"data":', "é"]),
    st.sampled_from(DATATYPES),
    st.lists(st.integers(1, 2), min_size=1, max_size=3),
)


def tensor_of(
    name: str, datatype: str, shape: list[int], binary: bool, draw: Callable[[Any], Any]
) -> tuple[dict[str, Any], bytes]:
    """A tensor as JSON has it, and its binary data."""
    count = math.prod(shape)
    tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    if binary:
        size = count * ITEM_SIZES[datatype]
        tensor["parameters"] = {"binary_data_size": size}
        return tensor, draw(st.binary(min_size=size, max_size=size))
    values = values_of(datatype, count, draw)
    nested = [values] if len(shape) == 2 and shape[0] == 1 else values
    tensor["data"] = draw(st.sampled_from([values, nested]))
    return tensor, b""


@st.composite
def bodies(draw: Any) -> tuple[list[Body], int]:
    """Bodies that are alike: as one client sends them, with other data and ids each time."""
    binary = draw(st.booleans())
    specs = draw(st.lists(SPECS, min_size=1, max_size=3))
    id_at = draw(st.sampled_from(["", "first", "last", "middle"]))
    extra = draw(st.sampled_from(EXTRAS))
    extra_first = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]))
    found: list[Body] = []
    for number in range(draw(st.integers(3, 5))):
        made = [
            tensor_of(f"{name}{at}", datatype, shape, binary, draw)
            for at, (name, datatype, shape) in enumerate(specs)
        ]
        inputs = {"inputs": [tensor for tensor, _ in made]}
        id = {"id": draw(st.sampled_from(IDS)) + str(number)}
        body = {**extra, **inputs} if extra_first else {**inputs, **extra}
        if id_at == "first":
            body = {**id, **body}
        elif id_at == "last":
            body = {**body, **id}
        elif id_at == "middle":
            body = {**inputs, **id, **extra}
        text = json.dumps(body, separators=separators).encode()
        tail = b"".join(data for _, data in made)
        found.append((text + tail, len(text) if binary else None))
    return found, draw(st.integers(0, 1 << 32))


def mutated(body: Body, chance: random.Random) -> Body:
    data = bytearray(body[0])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        what = chance.randrange(4)
        if what == 0:
            data[at] = chance.choice(b'0123456789.,-[]{}":eE n\\\x00\xff')
        elif what == 1:
            del data[at : at + chance.randint(1, 4)]
        elif what == 2:
            data[at:at] = chance.choice(
                [b",1", b"]", b"[", b'"', b" ", b'"data":', b"[1]", b'"id":"z",', b"}", b"\\"]
            )
        else:
            to = chance.randrange(len(data) + 1)
            data[at:at] = data[min(at, to) : max(at, to)][:40]
        if not data:
            break
    return bytes(data), body[1]


@settings(max_examples=250, deadline=None)
@given(bodies())
def test_a_body_is_read_as_in_full_or_not_at_all(given: tuple[list[Body], int]) -> None:
    alike, seed = given
    chance = random.Random(seed)
    skeletons = Skeletons(CallForms())
    for body in alike:
        found = skeletons.read(body[0], "iris", "3", body[1])
        if found is not None:
            assert same(found, read_in_full(body) or (None, None))
        learn(skeletons, body)
    for _ in range(40):
        body = mutated(chance.choice(alike), chance)
        if body[1] is not None and body[1] > len(body[0]):
            continue
        found = skeletons.read(body[0], "iris", "3", body[1])
        if found is not None:
            read = read_in_full(body)
            assert read is not None, body
            assert same(found, read), body


def json_body(data: object, **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def learned(*given: bytes) -> Skeletons:
    skeletons = Skeletons(CallForms())
    for body in given:
        learn(skeletons, (body, None))
    return skeletons


def test_a_body_whose_like_came_twice_is_known() -> None:
    once = learned(json_body([1, 2, 3, 4]))
    twice = learned(json_body([1, 2, 3, 4]), json_body([5, 6, 7, 8.5]))

    assert once.read(json_body([0, 0, 0, 1]), "iris", "3") is None
    assert twice.read(json_body([0, 0, 0, 1]), "iris", "3") is not None
    assert twice.read(json_body([[0, 0, 0, 1]]), "iris", "3") is not None
    assert (twice.hits, twice.misses) == (2, 0)


@pytest.mark.parametrize("where", ["first", "last"])
def test_ids_may_differ(where: str) -> None:
    def body(id: str) -> bytes:
        given = json.loads(json_body([1, 2, 3, 4]))
        return json.dumps({"id": id, **given} if where == "first" else {**given, "id": id}).encode()

    found = learned(body("a"), body("b")).read(body("c-3"), "iris", "3")

    assert found is not None
    assert found.id == "c-3"


@pytest.mark.parametrize(
    "data",
    [[1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, None], [1, 2, 3, True], [1e300] * 4, {}, "1", [[]]],
)
def test_data_that_do_not_fit_are_left_to_the_full_reading(data: object) -> None:
    skeletons = learned(json_body([1, 2, 3, 4]), json_body([5, 6, 7, 8]))

    assert skeletons.read(json_body(data), "iris", "3") is None


def test_another_model_or_version_has_skeletons_of_its_own() -> None:
    skeletons = learned(json_body([1, 2, 3, 4]), json_body([5, 6, 7, 8]))

    assert skeletons.read(json_body([1, 2, 3, 4]), "iris", "4") is None
    assert skeletons.read(json_body([1, 2, 3, 4]), "rose", "3") is None


def test_large_skeletons_are_not_kept() -> None:
    skeletons = learned(*[json_body([1, 2, 3, 4], extra="x" * 5000)] * 3)

    assert skeletons.read(json_body([1, 2, 3, 4], extra="x" * 5000), "iris", "3") is None
