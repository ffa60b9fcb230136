"""The conformance models, defined precisely enough to be built for any server.

A server is tested with as many of them as it has; each that it lacks is a reason to skip cases,
never a failure. Shapes are whole shapes, the batch dimension included; -1 is any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from stellwerk.conformance.values import SAMPLES

PREFIX = "conformance_"
# FAILS_ON_13 fails on this element; it takes elements from 0 to 13.
MAGIC = 13


class Behaviour(StrEnum):
    """The behaviour of a model."""

    # Each output is the input at the same place, unchanged.
    ECHO = "echo"
    # OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, element by element.
    ADD_SUB = "add_sub"
    # An echo that raises an error when an element is 13.
    FAILS_ON_13 = "fails_on_13"
    # Decoupled: for a COUNT of n, n responses whose INDEX is 0, 1, … n - 1; for 13 two responses
    # and then an error.
    COUNT_UP = "count_up"


@dataclass(frozen=True, slots=True)
class Spec:
    """An input or output of a model; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConformanceModel:
    """A model of known behaviour; `needed_for` tells people which cases need it."""

    key: str
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    behaviour: Behaviour
    needed_for: str

    @property
    def name(self) -> str:
        """The name that a server has the model under."""
        return PREFIX + self.key

    @property
    def decoupled(self) -> bool:
        """The number of responses: true if a request may have any number."""
        return self.behaviour is Behaviour.COUNT_UP


def echo_of(datatype: str) -> str:
    """Returns the key of the echo of this datatype."""
    return f"echo_{datatype.lower()}"


def _echo(
    key: str, needed_for: str, *pairs: tuple[str, str, str, tuple[int, ...]]
) -> ConformanceModel:
    inputs = tuple(Spec(name, datatype, shape) for name, _, datatype, shape in pairs)
    outputs = tuple(Spec(name, datatype, shape) for _, name, datatype, shape in pairs)
    return ConformanceModel(key, inputs, outputs, Behaviour.ECHO, needed_for)


def _matrix(name: str, datatype: str = "INT32") -> Spec:
    return Spec(name, datatype, (-1, -1))


_ALL = (
    *(
        _echo(echo_of(datatype), f"{datatype} tensors", ("INPUT0", "OUTPUT0", datatype, (-1, -1)))
        for datatype in SAMPLES
    ),
    _echo("scalar", "tensors without dimensions", ("INPUT0", "OUTPUT0", "FP32", ())),
    _echo("vector", "requests that are raw bytes alone", ("INPUT0", "OUTPUT0", "FP32", (-1,))),
    _echo("text", "generate", ("text_input", "text_output", "BYTES", (1,))),
    _echo(
        "mixed",
        "several datatypes in one request",
        ("NUMBERS", "NUMBERS_OUT", "FP32", (-1, -1)),
        ("TEXTS", "TEXTS_OUT", "BYTES", (-1, -1)),
    ),
    ConformanceModel(
        "add_sub",
        (_matrix("INPUT0"), _matrix("INPUT1")),
        (_matrix("OUTPUT0"), _matrix("OUTPUT1")),
        Behaviour.ADD_SUB,
        "several inputs and outputs",
    ),
    ConformanceModel(
        "fails_on_13",
        (_matrix("INPUT0", "INT64"),),
        (_matrix("OUTPUT0", "INT64"),),
        Behaviour.FAILS_ON_13,
        "errors that a model raises",
    ),
    ConformanceModel(
        "count_up",
        (Spec("COUNT", "INT32", (1,)),),
        (Spec("INDEX", "INT32", (1,)),),
        Behaviour.COUNT_UP,
        "decoupled models",
    ),
)
MODELS: dict[str, ConformanceModel] = {model.key: model for model in _ALL}
