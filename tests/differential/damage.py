"""Ways to make a valid request wrong. Each returns whether the request was one that it could
damage.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

_INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
RestDamage = Callable[[random.Random, dict[str, Any]], bool]
MessageDamage = Callable[[random.Random, Any], bool]


def _one(dice: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dice.choice(body["inputs"]) if body["inputs"] else {}
    return found


def _set(key: str, value: Any) -> RestDamage:
    def damage(dice: random.Random, body: dict[str, Any]) -> bool:
        tensor = _one(dice, body)
        changed = key in tensor and tensor[key] != value
        if changed:
            tensor[key] = value
        return changed

    return damage


def _without(key: str) -> RestDamage:
    def damage(dice: random.Random, body: dict[str, Any]) -> bool:
        return _one(dice, body).pop(key, None) is not None

    return damage


def _item(value: Any, *datatypes: str) -> RestDamage:
    """Puts a value in the place of an item of one of these datatypes."""

    def damage(dice: random.Random, body: dict[str, Any]) -> bool:
        tensor = _one(dice, body)
        fits = (
            tensor.get("datatype") in datatypes
            and isinstance(tensor.get("data"), list)
            and tensor["data"]
        )
        if fits:
            tensor["data"][dice.randrange(len(tensor["data"]))] = value
        return bool(fits)

    return damage


def _fewer(dice: random.Random, body: dict[str, Any]) -> bool:
    tensor = _one(dice, body)
    return (
        bool(tensor.get("data"))
        and isinstance(tensor["data"], list)
        and tensor["data"].pop() is not None
    )


def _more(dice: random.Random, body: dict[str, Any]) -> bool:
    tensor = _one(dice, body)
    if not isinstance(tensor.get("data"), list) or not tensor["data"]:
        return False
    tensor["data"].append(tensor["data"][0])
    return True


def _flat(dice: random.Random, body: dict[str, Any]) -> bool:
    tensor = _one(dice, body)
    if not isinstance(tensor.get("shape"), list) or len(tensor["shape"]) != 2:
        return False
    tensor["shape"] = [tensor["shape"][0] * tensor["shape"][1]]
    return True


def _twice(dice: random.Random, body: dict[str, Any]) -> bool:
    tensor = _one(dice, body)
    body["inputs"].append(tensor)
    return bool(tensor)


def _another(dice: random.Random, body: dict[str, Any]) -> bool:
    body["inputs"].append({"name": "OTHER", "shape": [1], "datatype": "FP32", "data": [1.0]})
    return True


def _drop(dice: random.Random, body: dict[str, Any]) -> bool:
    return bool(body["inputs"]) and body["inputs"].pop() is not None


def _wish(dice: random.Random, body: dict[str, Any]) -> bool:
    body.setdefault("outputs", []).append({"name": "NOPE"})
    return True


def _id(dice: random.Random, body: dict[str, Any]) -> bool:
    body["id"] = 42
    return True


REST_DAMAGES: dict[str, RestDamage] = {
    "wrong datatype": _set("datatype", "INT16"),
    "unknown datatype": _set("datatype", "FLOAT"),
    "unknown input": _set("name", "NOPE"),
    "data no list": _set("data", "x"),
    "no shape": _without("shape"),
    "no datatype": _without("datatype"),
    "no data": _without("data"),
    "no name": _without("name"),
    "fraction for integer": _item(1.5, *_INTEGERS),
    "overflow": _item(2**40, "INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32"),
    "overflow of 64 bits": _item(2**70, "INT64", "UINT64"),
    "negative for unsigned": _item(-1, "UINT8", "UINT16", "UINT32", "UINT64"),
    "text for number": _item("six", *_INTEGERS, "FP32", "FP64"),
    "number for text": _item(6, "BYTES"),
    "too few items": _fewer,
    "too many items": _more,
    "wrong rank": _flat,
    "input twice": _twice,
    "extra input": _another,
    "missing input": _drop,
    "unknown output": _wish,
    "id no text": _id,
}


def _first(change: Callable[[Any], None]) -> MessageDamage:
    def damage(dice: random.Random, message: Any) -> bool:
        if message.inputs:
            change(dice.choice(message.inputs))
        return bool(message.inputs)

    return damage


def _datatype(name: str) -> MessageDamage:
    def damage(dice: random.Random, message: Any) -> bool:
        tensor = dice.choice(message.inputs) if message.inputs else None
        changed = tensor is not None and tensor.datatype != name
        if changed:
            tensor.datatype = name
        return changed

    return damage


def _raw(change: Callable[[Any], None]) -> MessageDamage:
    """Changes the raw entries, where there are any."""

    def damage(dice: random.Random, message: Any) -> bool:
        if message.raw_input_contents:
            change(message.raw_input_contents)
        return bool(message.raw_input_contents)

    return damage


def _both(dice: random.Random, message: Any) -> bool:
    if message.raw_input_contents and message.inputs:
        message.inputs[0].contents.fp32_contents.append(1.0)
    return bool(message.raw_input_contents and message.inputs)


def _longer(entries: Any) -> None:
    entries[0] = entries[0] + b"\x01"


def _named(request: Any) -> None:
    request.name = "NOPE"


def _flat_shape(tensor: Any) -> None:
    tensor.shape.append(1)


def _unknown_model(dice: random.Random, message: Any) -> bool:
    message.model_name = "conformance_nobody"
    return True


def _unknown_version(dice: random.Random, message: Any) -> bool:
    message.model_version = "999"
    return True


def _unknown_output(dice: random.Random, message: Any) -> bool:
    message.outputs.add(name="NOPE")
    return True


def _repeated(dice: random.Random, message: Any) -> bool:
    message.inputs.append(message.inputs[0])
    if message.raw_input_contents:
        message.raw_input_contents.append(message.raw_input_contents[0])
    return True


MESSAGE_DAMAGES: dict[str, MessageDamage] = {
    "wrong datatype": _datatype("INT16"),
    "unknown datatype": _datatype("FLOAT"),
    "unknown input": _first(_named),
    "wrong rank": _first(_flat_shape),
    "raw too long": _raw(_longer),
    "raw extra": _raw(lambda entries: entries.append(b"")),
    "raw missing": _raw(lambda entries: entries.pop()),
    "raw and typed": _both,
    "input twice": _repeated,
    "unknown output": _unknown_output,
    "unknown model": _unknown_model,
    "unknown version": _unknown_version,
}
