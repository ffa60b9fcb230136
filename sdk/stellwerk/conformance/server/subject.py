"""The server under test: its transports, its metadata, and the conformance models that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from stellwerk.conformance.expect import Mismatch, NotApplicable, equal, status
from stellwerk.conformance.models.definitions import MODELS, echo_of
from stellwerk.conformance.server import binary
from stellwerk.conformance.server.rest import Reply, Rest, model_path
from stellwerk.conformance.server.rpc import Rpc, infer_request, outputs_of
from stellwerk.conformance.server.waiting import eventually
from stellwerk.conformance.values import Tensor
from stellwerk.inference.v2 import grpc_service_pb2 as pb


class Transport(StrEnum):
    """The way to the server that a case takes."""

    REST = "rest"
    GRPC = "grpc"


# Tells whether the server answers an extension over a transport.
Probe = Callable[["Subject", Transport], bool]


class Unreachable(Exception):
    """The server does not answer at all."""


@dataclass
class Subject:
    """A server under test, over REST, gRPC or both.

    `names` maps keys of conformance models to the server's names for them, where they differ.
    """

    rest: Rest | None
    rpc: Rpc | None
    names: dict[str, str] = field(default_factory=dict)
    extensions: bool = True
    probes: dict[str, Probe] = field(default_factory=dict)
    # Seconds after which a server that does not serve is taken for gone.
    patience: float = 5.0
    _implemented: dict[tuple[str, Transport], bool] = field(default_factory=dict)
    _present: dict[str, bool] = field(default_factory=dict)

    @property
    def http(self) -> Rest:
        """The connections over REST. Raises NotApplicable if there is no address."""
        if self.rest is None:
            raise NotApplicable("no REST address was given")
        return self.rest

    @property
    def grpc(self) -> Rpc:
        """The channel over gRPC. Raises NotApplicable if there is no address."""
        if self.rpc is None:
            raise NotApplicable("no gRPC address was given (--grpc)")
        return self.rpc

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions as the server tells them, over REST if there is an address;
        empty if it tells nothing.
        """
        try:
            if self.rest is not None:
                found = self.rest.get("/v2").json()
                return found if isinstance(found, dict) else {}
            answer = self.grpc.call("ServerMetadata", pb.ServerMetadataRequest())
            return {
                "name": answer.name,
                "version": answer.version,
                "extensions": list(answer.extensions),
            }
        except (Mismatch, NotApplicable):
            return {}

    @property
    def advertised(self) -> frozenset[str]:
        """The extensions that the server advertises."""
        found = self.metadata.get("extensions")
        return (
            frozenset(name for name in found if isinstance(name, str))
            if isinstance(found, list)
            else frozenset()
        )

    def model(self, key: str) -> str:
        """Returns the server's name of a conformance model. Raises NotApplicable if the server
        lacks it.
        """
        name = self.names.get(key, MODELS[key].name)
        if key not in self._present:
            self._present[key] = self._has(name)
        if not self._present[key]:
            raise NotApplicable(f"the server has no model {name}")
        return name

    def echo(self, datatype: str = "FP32") -> str:
        """Returns the name of the echo of a datatype. Raises NotApplicable if the server
        lacks it.
        """
        return self.model(echo_of(datatype))

    def _has(self, name: str) -> bool:
        try:
            if self.rest is not None:
                return self.rest.get(model_path(name)).status == 200
            return self.grpc.refusal("ModelMetadata", pb.ModelMetadataRequest(name=name)) is None
        except Mismatch:
            return False

    def require(self, transport: Transport, extension: str) -> None:
        """Raises NotApplicable if the server lacks the transport or the extension ("" for the core
        of the protocol).
        """
        _ = self.http if transport is Transport.REST else self.grpc
        if not extension:
            return
        if not self.extensions:
            raise NotApplicable("extensions are left out (--core-only)")
        key = (extension, transport)
        if key not in self._implemented:
            self._implemented[key] = self._has_extension(*key)
        if not self._implemented[key]:
            raise NotApplicable(f"the extension {extension} is neither advertised nor answered")

    def _has_extension(self, extension: str, transport: Transport) -> bool:
        if extension in self.advertised:
            return True
        try:
            return extension in self.probes and self.probes[extension](self, transport)
        except (Mismatch, NotApplicable):
            return False

    def serves(self) -> bool:
        """Returns whether the server answers within `patience` seconds, and calls the echo of FP32
        if it has that model.
        """
        try:
            eventually(self._serve, self.patience)
        except Mismatch:
            return False
        return True

    def _serve(self) -> None:
        if self.rest is not None:
            status(self.rest.get("/v2/health/live"), 200)
        if self._present.get(echo_of("FP32")):
            tensor = Tensor("INPUT0", "FP32", (1, 1), [1.0])
            found = (
                self.infer(self.echo(), [tensor])
                if self.rest is not None
                else self.call(self.echo(), [tensor])
            )
            equal(list(found), ["OUTPUT0"], "outputs")

    def close(self) -> None:
        """Closes the connections."""
        for way in (self.rest, self.rpc):
            if way is not None:
                way.close()

    def post(self, model: str, inputs: Sequence[Any], version: str = "", **members: Any) -> Reply:
        """Posts a REST infer request; `inputs` are tensors, or any JSON in the place of one."""
        listed = [item.json() if isinstance(item, Tensor) else item for item in inputs]
        return self.http.post(model_path(model, "infer", version), {"inputs": listed, **members})

    def infer(self, model: str, inputs: Sequence[Any], **members: Any) -> dict[str, Tensor]:
        """Posts a REST infer request and returns its outputs. Raises Mismatch if it fails."""
        return binary.outputs_of(self.post(model, inputs, **members))

    def call(self, model: str, inputs: Sequence[Tensor], **options: Any) -> dict[str, Tensor]:
        """Calls ModelInfer and returns its outputs. Raises Mismatch if it fails."""
        return outputs_of(self.grpc.call("ModelInfer", infer_request(model, inputs, **options)))
