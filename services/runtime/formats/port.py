"""What a model format is to the runtime. A format loads an artifact; what it loads answers
calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput, NotImplementedHere

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class FormatSettings:
    """What the operator decides for all formats."""

    # Threads that one call may use inside of a library; slots × threads = cores.
    threads: int = 1
    # Bytes that models may use in all; what would unpack to more than that is not unpacked.
    memory_bytes: int = 1 << 62
    # Prefixes of the modules that safetensors weights may name.
    torch_modules: tuple[str, ...] = ("torch.nn",)
    # "auto" takes CUDA where there is some, "cpu" never does, "cuda:1" takes that device.
    device: str = "auto"


class LoadedModel(Protocol):
    """A model in memory. `call` and `stream` are synchronous and run in worker threads, several at
    a time.
    """

    @property
    def memory_bytes(self) -> int:
        """The format's own estimate of the footprint."""
        ...

    @property
    def device(self) -> str:
        """Such as "cpu" or "cuda:0"."""
        ...

    @property
    def streams(self) -> frozenset[str]:
        """The methods that give any number of answers to one call, none included; only `stream`
        calls those.
        """
        ...

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls a method with inputs by name. Raises InvalidInput; whatever else it raises is the
        model's own fault.

        NotImplementedHere for one of `streams`: its answers do not fit into one.
        """
        ...

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """Calls one of `streams`; each answer is what `call` would give, and is computed when it is
        asked for.

        Raises as `call` does, at any point of the iteration; NotImplementedHere at once for another
        method. Whoever stops before the end closes the iterator, in the thread that iterates.
        """
        ...

    def close(self) -> None:
        """Lets go of what garbage collection would not."""
        ...


class OneAnswer:
    """What a model says of itself whose every method gives one answer to one call."""

    streams: frozenset[str] = frozenset()

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """Raises NotImplementedHere."""
        raise not_a_stream(method)


def not_a_stream(method: str) -> NotImplementedHere:
    """The error for a stream of a method that gives one answer."""
    return NotImplementedHere(
        f"'{method[:64]}' gives one answer; call it without a stream", method=method[:64]
    )


def only_a_stream(method: str) -> NotImplementedHere:
    """The error for an ordinary call of a method that gives any number of answers."""
    return NotImplementedHere(
        f"'{method[:64]}' gives any number of answers; call it over a stream", method=method[:64]
    )


class ModelFormat(Protocol):
    """A way of storing models. Constructed once per process with the settings.

    Constructing one imports no heavy library, so that a runtime is there at once and small until it
    has work; it raises ImportError where its library is not installed.
    """

    @property
    def name(self) -> str: ...

    @property
    def runs_code(self) -> bool:
        """Whether loading an artifact runs code that the artifact carries."""
        ...

    def frameworks(self) -> dict[str, str]:
        """Versions of the frameworks that this format brings, by package name."""
        ...

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """The devices besides the CPU that this format can use."""
        ...

    def prepare(self) -> None:
        """Imports what loading needs, so that a model's footprint is measured without its
        libraries'.
        """
        ...

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Loads the artifact. `device` is "auto", "cpu", "cuda" or "cuda:N". Several threads may
        load at a time.

        Raises UnsafeFormat, InvalidInput, RequirementUnmet; anything else means the artifact is
        broken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of one method as the model's owner declared them; both lists empty when nothing
    was declared.
    """

    inputs: tuple[tensor_pb2.TensorSpec, ...] = field(default=())
    outputs: tuple[tensor_pb2.TensorSpec, ...] = field(default=())


def signatures(version: repository_pb2.ModelVersion) -> dict[str, Signature]:
    """The declared signatures by method."""
    return {
        entry.method: Signature(tuple(entry.inputs), tuple(entry.outputs))
        for entry in version.signature
    }


def in_order(inputs: Arrays, signature: Signature) -> list[Array]:
    """The inputs in the signature's order, or as given when there is none. InvalidInput if one is
    missing or extra.
    """
    if not signature.inputs:
        return list(inputs.values())
    wanted = [spec.name for spec in signature.inputs]
    if set(wanted) != set(inputs):
        raise InvalidInput(
            f"the model takes the inputs {', '.join(wanted)}; give each of them once",
            expected=",".join(wanted),
        )
    return [inputs[name] for name in wanted]
