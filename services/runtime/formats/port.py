"""Defines what a model format is to a runtime. A plug-in needs nothing else of Stellwerk.

Finding. A plug-in is any installed package with an entry point in the group
`stellwerk.model_formats`. It names a class with the members of `ModelFormat`:

    [project.entry-points."stellwerk.model_formats"]
    linear_json = "linear_json.plugin:LinearJsonFormat"

A runtime constructs each class once, when it starts. Its `name` is the format that users give when
they store a model: 1 to 32 lower-case letters, digits or "_", beginning with a letter. The runtime
advertises it, and routers send it models of this format. Of two plug-ins with one name, the one
whose entry point sorts first counts; the other is left out with a warning.

Weight. The module of the entry point is imported by every runtime, whether it loads such a model or
not. Import heavy libraries in `prepare`, and in the modules that `load` imports.

Threads. The constructor, `frameworks` and `accelerators` run once, in a thread of their own.
`prepare` and `load` run in one of two loading threads: `prepare` in one at a time, `load` in both.
`call` and `stream` run in up to `slots` worker threads at a time, also on the same model. `close`
runs once, after the last call, in a thread of its own or, after a failed warm-up, in the loading
thread. None of them runs on the event loop, so each may block.

Tensors. Inputs come by name, in the order of the request. They fit the version's signature if it
declares any inputs: names, datatypes, ranks and fixed dimensions. Their dtypes by datatype of the
Open Inference Protocol:

    BOOL              bool
    INT8 … INT64      int8 … int64
    UINT8 … UINT64    uint8 … uint64
    FP16, FP32, FP64  float16, float32, float64
    BF16              float32, since numpy has no bfloat16
    BYTES             object, each element a `bytes`

Arrays of numbers are little-endian, C-contiguous and read-only: they share the request's memory.
Copy an array before writing to it, and keep none after the call. Outputs are numpy arrays by name,
in the order in which callers see them. They may have any dtype above, or hold `str`, which becomes
BYTES in UTF-8. No output becomes BF16. Shapes are kept. An output's dtype decides its datatype,
whatever the signature declares.

Rows. The first dimension counts rows. The runtime may call a method once for several requests,
with their rows end to end. Output row i must then belong to input row i and depend on it alone.
This happens only where the version's owner stored it with the format option `batching=rows`. If the
signature is declared, its first dimensions must be -1. Every output must have as many rows as the
inputs; otherwise the call fails with MODEL_FAILED.

Errors. Raise classes of `stellwerk.wire.errors` for what the caller or operator can put right. They
reach the caller unchanged:

    InvalidInput        the inputs, or the format options, are wrong          400 INVALID_INPUT
    Corrupt             the artifact is damaged or of another format          500 CORRUPT
    UnsafeFormat        the artifact could run code                           400 UNSAFE_FORMAT
    RequirementUnmet    this runtime lacks a device or a library              400 REQUIREMENT_UNMET
    Overloaded          memory or a quota is short, a later try may succeed   429 OVERLOADED

MemoryError becomes Overloaded. Any other exception becomes ModelFailed (400 MODEL_FAILED). Its
message names the class; if `call` or `stream` raised it, also the first 200 characters of its first
line. The traceback goes to the runtime's log. A call that fails for several requests is repeated
for each half of them, so `call` must tolerate repetition. A constructor that raises ImportError
leaves the format out of this runtime, with a line in the log; other exceptions do so too.

Memory. A model is counted with its `memory_bytes` or the growth of the process during `load`,
whichever is larger. The artifact's size stands for the growth if another model loads meanwhile. If
the sum exceeds what the operator allows, the least recently used models are closed. Free in `close`
what garbage collection would not find at once.

Warm-up. Right after `load`, in the same thread, the runtime makes the warm-up calls that the owner
stored. Without any, and if `runs_code` is False, it calls `predict` with one row of zeros if the
signature says what that is; it ignores an error of that call.

Streams. A method in `streams` gives any number of answers to one call. Only `stream` is called for
such a method, and only for callers that take a stream.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput, NotImplementedHere

Array = npt.NDArray[np.generic]
# Arrays by the name of their tensor.
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class FormatSettings:
    """The operator's settings for formats, given to each constructor."""

    # Threads that a library may use inside of one call; slots × threads = cores.
    threads: int = 1
    # Bytes that all models together may use. Refuse to unpack an artifact to more than this.
    memory_bytes: int = 1 << 62
    # Prefixes of the modules that `torch_safetensors` may import; of no use to other formats.
    torch_modules: tuple[str, ...] = ("torch.nn",)


class LoadedModel(Protocol):
    """A model in memory. Inherit from this class for the defaults, or bring all members."""

    # The format's estimate of the model's footprint in main memory, or on its device.
    memory_bytes: int
    # The device that holds the model: "cpu" or "cuda:N".
    device: str = "cpu"
    # Methods that give any number of answers, including none, to one call.
    streams: frozenset[str] = frozenset()

    @abstractmethod
    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Returns the outputs of `method`, which is not in `streams`, by name.

        Raises InvalidInput for a method or for inputs that the model does not take.
        """
        ...

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """Returns an iterator over the answers of `method`, which is in `streams`.

        Each answer is what `call` would return, computed when the iterator is asked for it. A
        caller that leaves early closes the iterator in the thread that iterates it. Raises as
        `call` does, at any point; NotImplementedHere for a method that is not in `streams`.
        """
        raise not_streaming(method)

    def close(self) -> None:
        """Frees what garbage collection would not find at once. Nothing by default."""
        return


class ModelFormat(Protocol):
    """A model format. Inherit from this class for the defaults, or bring all members.

    The constructor takes the FormatSettings as its only argument.
    """

    # The format's id, as given when a model is stored.
    name: str
    # Whether loading an artifact runs code that the artifact carries. Such a format is left out
    # unless the operator allows it.
    runs_code: bool = False

    def frameworks(self) -> dict[str, str]:
        """Returns the versions of the format's libraries by package name, for versions that
        require one. None by default.
        """
        return {}

    def accelerators(self) -> Sequence[router_pb2.Accelerator]:
        """Returns the devices besides the CPU that the format can use. None by default."""
        return ()

    def prepare(self) -> None:
        """Imports the libraries that `load` needs. Called before every `load`.

        Their memory is then not counted as the first model's. Imports nothing by default.
        """
        return

    @abstractmethod
    def load(self, path: Path, version: repository_pb2.ModelVersion, device: str) -> LoadedModel:
        """Returns the model in the artifact at `path`, a file that may vanish after this call.

        `version` holds the metadata: among others name, signature and format_options. `device` is
        "auto", "cpu", "cuda" or "cuda:N"; formats without accelerators ignore it. Raises the errors
        that the module's documentation lists.
        """
        ...


def installed_versions(*packages: str) -> dict[str, str]:
    """Returns the installed versions by package name, without importing the packages.

    Leaves out a build's suffix such as "+cpu", so that a requirement such as ">=2.6" compares
    releases. Raises ImportError with the name of the first package that is not installed.
    """
    return {name: installed_version(name).partition("+")[0] for name in packages}


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a method as the model's owner declared them; empty where nothing is declared.

    A dimension of -1 takes any length.
    """

    inputs: tuple[tensor_pb2.TensorSpec, ...] = ()
    outputs: tuple[tensor_pb2.TensorSpec, ...] = ()


def signatures(version: repository_pb2.ModelVersion) -> dict[str, Signature]:
    """Returns the version's declared signatures by method."""
    return {
        entry.method: Signature(tuple(entry.inputs), tuple(entry.outputs))
        for entry in version.signature
    }


def in_order(inputs: Arrays, signature: Signature) -> list[Array]:
    """Returns the inputs in the signature's order, or in the given order if it declares none.

    Raises InvalidInput if an input is missing or not declared.
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


def not_streaming(method: str) -> NotImplementedHere:
    """Returns the error for a stream of a method that gives one answer."""
    return NotImplementedHere(
        f"'{method[:64]}' gives one answer; call it without a stream", method=method[:64]
    )


def streaming_only(method: str) -> NotImplementedHere:
    """Returns the error for a call without a stream of a method that gives many answers."""
    return NotImplementedHere(
        f"'{method[:64]}' gives any number of answers; call it over a stream", method=method[:64]
    )
