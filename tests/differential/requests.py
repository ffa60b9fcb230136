"""Requests from a seed: valid ones, and valid ones that were damaged in one or two known ways.

What is known to end Triton (a shape that lies about gigabytes, two negative dimensions) is not
among them; the conformance suite shows that, and starts it anew.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stellwerk.conformance.models.definitions import MODELS, Behaviour, ConformanceModel
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import JSON, model_path
from stellwerk.conformance.server.rpc import infer_request, parameter
from stellwerk.conformance.server.subject import Transport
from stellwerk.conformance.values import FIELDS, FLOATS, Tensor
from stellwerk.inference.v2 import grpc_service_pb2 as pb
from tests.differential.damage import MESSAGE_DAMAGES, REST_DAMAGES

# Both have them, and both know each of their shapes.
KEYS = [
    key
    for key, model in MODELS.items()
    if not model.decoupled and key not in ("scalar", "echo_bf16", "text")
]
_LETTERS = 'abcxyz ÄßÆ信号€"\\\n\t/'
_BITS = {"8": 8, "16": 16, "32": 32, "64": 64}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to send. `labels` name what was done to it; without a damage it is
    valid.
    """

    number: int
    transport: Transport
    labels: tuple[str, ...]
    path: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    message: pb.ModelInferRequest | None = None

    def __str__(self) -> str:
        shown = str(self.message) if self.message else f"{self.path} {self.body[:300]!r}"
        return (
            f"#{self.number} {self.transport} [{', '.join(self.labels) or 'valid'}]"
            f" {' '.join(shown.split())[:400]}"
        )


def requests(seed: int, count: int) -> Iterator[Request]:
    """So many requests; the same for the same seed."""
    dice = random.Random(seed)
    makers: Sequence[Callable[[random.Random, int], Request]] = (_rest, _rest_binary, _grpc)
    for number in range(count):
        yield dice.choice(makers)(dice, number)


def _tensors(dice: random.Random, model: ConformanceModel) -> list[Tensor]:
    """Valid inputs; all of one call have the same shape, as element-wise models want."""
    shape = tuple(dice.choice((1, 1, 2, 3, 5, 0)) for _ in model.inputs[0].shape)
    count = 1
    for size in shape:
        count *= size
    bound = 13 if model.behaviour is Behaviour.FAILS_ON_13 else 0
    return [
        Tensor(
            spec.name,
            spec.datatype,
            shape,
            [_item(dice, spec.datatype, bound) for _ in range(count)],
        )
        for spec in model.inputs
    ]


def _item(dice: random.Random, datatype: str, bound: int) -> Any:
    if bound:
        return dice.randrange(bound)
    if datatype == "BOOL":
        return dice.random() < 0.5
    if datatype == "BYTES":
        return "".join(dice.choices(_LETTERS, k=dice.randrange(12))).encode()
    if datatype in FLOATS:
        return float(dice.randrange(-2048, 2048)) / 2 ** dice.randrange(6)
    bits = _BITS[datatype.removeprefix("U").removeprefix("INT")]
    low, high = (
        (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    # Sums must not overflow, where a model adds.
    return dice.choice((low, high, dice.randint(low, high), dice.randint(low // 4, high // 4)))


def _model(dice: random.Random, json_only: bool = False) -> ConformanceModel:
    model = MODELS[dice.choice(KEYS)]
    if json_only and any(spec.datatype not in FIELDS for spec in model.inputs):
        return MODELS["mixed"]
    return model


def _inputs(dice: random.Random, model: ConformanceModel) -> list[Tensor]:
    tensors = _tensors(dice, model)
    if model.behaviour is Behaviour.ADD_SUB:
        tensors = [
            Tensor(t.name, t.datatype, t.shape, [item // 4 for item in t.items]) for t in tensors
        ]
    if dice.random() < 0.2:
        tensors.reverse()
    return tensors


def _wishes(dice: random.Random, model: ConformanceModel) -> tuple[list[str], list[str]]:
    """Outputs that are asked for, and what was done."""
    if dice.random() < 0.7:
        return [], []
    return [spec.name for spec in model.outputs if dice.random() < 0.7], ["some outputs"]


def _rest(dice: random.Random, number: int) -> Request:
    model = _model(dice, json_only=True)
    tensors = _inputs(dice, model)
    wanted, labels = _wishes(dice, model)
    body: dict[str, Any] = {"id": f"r{number}", "inputs": [tensor.json() for tensor in tensors]}
    if wanted:
        body["outputs"] = [{"name": name} for name in wanted]
    if dice.random() < 0.2:
        labels, body["parameters"] = [*labels, "parameters"], {"colour": "red", "count": 3}
    for name in _damages(dice, REST_DAMAGES):
        if REST_DAMAGES[name](dice, body):
            labels.append(name)
    data = json.dumps(body).encode()
    if dice.random() < 0.05:
        labels, data = [*labels, "malformed"], data[: dice.randrange(len(data))]
    return _rest_request(dice, number, model, labels, data, dict(JSON))


def _rest_request(
    dice: random.Random,
    number: int,
    model: ConformanceModel,
    labels: list[str],
    data: bytes,
    headers: dict[str, str],
) -> Request:
    name, version = model.name, dice.choice(("", "", "1"))
    if dice.random() < 0.04:
        labels, name = [*labels, "unknown model"], "conformance_nobody"
    elif dice.random() < 0.04:
        labels, version = [*labels, "unknown version"], "999"
    return Request(
        number, Transport.REST, tuple(labels), model_path(name, "infer", version), data, headers
    )


def _rest_binary(dice: random.Random, number: int) -> Request:
    model = _model(dice)
    tensors, labels = _inputs(dice, model), ["binary"]
    plain = [t for t in tensors if t.datatype in FIELDS and dice.random() < 0.3]
    packed = [t for t in tensors if t not in plain]
    excess = b""
    if packed and dice.random() < 0.1:
        labels, excess = [*labels, "bytes left over"], b"1234"
    # FP16 has no JSON form, so that all answers are asked for in binary.
    body, headers = binary.encode(
        packed, plain, excess=excess, parameters={"binary_data_output": True}
    )
    if packed and dice.random() < 0.1 and len(packed[-1].raw()) > 0:
        labels, body = [*labels, "bytes missing"], body[:-1]
    return _rest_request(dice, number, model, labels, body, headers)


def _grpc(dice: random.Random, number: int) -> Request:
    typed = dice.random() < 0.5
    model = _model(dice, json_only=typed)
    wanted, labels = _wishes(dice, model)
    message = infer_request(
        model.name, _inputs(dice, model), typed=typed, outputs=wanted, id=f"g{number}"
    )
    if dice.random() < 0.2:
        labels.append("parameters")
        message.parameters["colour"].CopyFrom(parameter("red"))
    for name in _damages(dice, MESSAGE_DAMAGES):
        if MESSAGE_DAMAGES[name](dice, message):
            labels.append(name)
    return Request(number, Transport.GRPC, tuple(labels), message=message)


def _damages(dice: random.Random, known: dict[str, Any]) -> list[str]:
    return dice.sample(sorted(known), dice.choice((0, 0, 0, 1, 1, 2)))
