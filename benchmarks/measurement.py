"""What one measurement says, and what a system under test must offer to be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from stellwerk.inference.v2 import grpc_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class RestCall:
    """One HTTP POST to repeat, and how to tell that its answer is right."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    right: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """One ModelInfer to repeat: the address, the serialised request, the metadata, and how to tell
    a right answer.
    """

    address: str
    request: bytes
    metadata: Mapping[str, str]
    right: Callable[[pb.ModelInferResponse], bool] = lambda answer: len(answer.outputs) > 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load on one system. Latencies in milliseconds, `cpu` in CPU-seconds of the system per
    1,000 requests.

    `cpu_parts` splits the same by the system's processes. `generator` is the load generator's own
    CPU time as a share of one core.
    """

    system: str
    requests: int
    errors: int
    seconds: float
    per_second: float
    p50: float
    p99: float | None
    cpu: float
    cpu_parts: Mapping[str, float] = field(default_factory=dict)
    generator: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Its values, rounded to what they are worth."""
        values = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }
        return values | {
            "cpu_parts": {part: round(value, 4) for part, value in self.cpu_parts.items()}
        }


class System(Protocol):
    """A running server: `name` says what, `versions` of what, `parts` which processes do its work,
    by their names.
    """

    @property
    def name(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]: ...

    def parts(self) -> Mapping[str, Sequence[int]]: ...

    def stop(self) -> None: ...


class WrongAnswer(Exception):
    """A system did not do the work that is being measured."""
