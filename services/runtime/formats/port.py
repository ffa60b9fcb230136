"""What a model format is to the runtime. A format loads an artifact; what it loads answers calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.wire.errors import InvalidInput
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.type.v1 import tensor_pb2

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
    """A model in memory. `call` is synchronous and runs in worker threads, several at a time."""

    @property
    def memory_bytes(self) -> int:
        """The format's own estimate of the footprint."""
        ...

    @property
    def device(self) -> str:
        """Such as "cpu" or "cuda:0"."""
        ...

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls a method with inputs by name. Raises InvalidInput; whatever else it raises is the model's own fault."""
        ...

    def close(self) -> None:
        """Lets go of what garbage collection would not."""
        ...


class ModelFormat(Protocol):
    """A way of storing models. Constructed once per process with the settings.

    Constructing one imports no heavy library, so that a runtime is there at once and small until it has work; it raises
    ImportError where its library is not installed.
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
        """Imports what loading needs, so that a model's footprint is measured without its libraries'."""
        ...

    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Loads the artifact. `device` is "auto", "cpu", "cuda" or "cuda:N".

        Raises UnsafeFormat, InvalidInput, RequirementUnmet; anything else means the artifact is broken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of one method as the model's owner declared them; both lists empty when nothing was declared."""

    inputs: tuple[tensor_pb2.TensorSpec, ...] = field(default=())
    outputs: tuple[tensor_pb2.TensorSpec, ...] = field(default=())


def signatures(version: repository_pb2.ModelVersion) -> dict[str, Signature]:
    """The declared signatures by method."""
    return {entry.method: Signature(tuple(entry.inputs), tuple(entry.outputs)) for entry in version.signature}


def in_order(inputs: Arrays, signature: Signature) -> list[Array]:
    """The inputs in the signature's order, or as given when there is none. InvalidInput if one is missing or extra."""
    if not signature.inputs:
        return list(inputs.values())
    wanted = [spec.name for spec in signature.inputs]
    if set(wanted) != set(inputs):
        raise InvalidInput(
            f"the model takes the inputs {', '.join(wanted)}; give each of them once", expected=",".join(wanted)
        )
    return [inputs[name] for name in wanted]
