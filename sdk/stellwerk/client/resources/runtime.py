"""Calling models: `runtime.model("iris").predict(X)`. Arrays go out and come back as the model's
signature says.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.client.errors import InvalidInput
from stellwerk.client.naming import model_name
from stellwerk.client.resources.requirements import requirements
from stellwerk.client.resources.resource import Noun, S
from stellwerk.client.session.plan import Plan, call, operation
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb
from stellwerk.router.v1 import router_service_pb2 as pb
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.type.v1.tensor_pb2 import MethodSignature
from stellwerk.wire import names

# A name may come to mean another version at any time; the platform checks every call against the
# version it calls.
BELIEVE_SECONDS = 60.0


class Runtime(Noun[S]):
    """Where models run."""

    def __init__(self, session: S, requires: Requirements | None = None) -> None:
        super().__init__(session)
        self._requires = requires or Requirements()

    def require(
        self,
        *,
        gpu: int | bool = 0,
        accelerator: str = "",
        accelerator_memory: int | str = 0,
        memory: int | str = 0,
        cpu: int = 0,
        label: str | None = None,
        labels: Mapping[str, str] | None = None,
        frameworks: Mapping[str, str] | list[str] | None = None,
    ) -> Runtime[S]:
        """The runtimes that have all of this, beside what was required before.

        `gpu=1` asks for a CUDA device, `memory="2GiB"` for the runtime's memory, `label="west"` for
        a runtime started with that label, `frameworks={"torch": ">=2.4"}` for versions. Sizes are
        bytes, or text such as "500MB".
        """
        asked = requirements(
            gpu=gpu,
            accelerator=accelerator,
            accelerator_memory=accelerator_memory,
            memory=memory,
            cpu=cpu,
            label=label,
            labels=labels,
            frameworks=frameworks,
        )
        merged = Requirements()
        merged.CopyFrom(self._requires)
        merged.MergeFrom(asked)
        return Runtime(self.session, merged)

    def model(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> RuntimeModel[S]:
        """A model to call: the version or alias given, else what its alias "default" points to,
        else the newest.
        """
        return RuntimeModel(
            self.session, model_name(name, self._bucket, version, alias), self._requires
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer with where it came from."""

    # An array, or a dict of arrays if the method has several outputs.
    value: Any
    model_version: str
    runtime: str


class RuntimeModel(Noun[S]):
    """A stored model that can be called like a local one."""

    def __init__(self, session: S, name: names.ModelName, requires: Requirements) -> None:
        super().__init__(session)
        self.name = name
        self._requires = requires

    @operation
    def predict(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Predictions, one per row of X: numpy, pandas, a list, or a dict of these for a model with
        several inputs.
        """
        return (yield from self._call("predict", X, timeout=timeout)).value

    @operation
    def predict_proba(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Class probabilities, N×C."""
        return (yield from self._call("predict_proba", X, timeout=timeout)).value

    @operation
    def transform(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """The rows transformed."""
        return (yield from self._call("transform", X, timeout=timeout)).value

    @operation
    def decision_function(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Confidences, as the estimator's own decision_function gives them."""
        return (yield from self._call("decision_function", X, timeout=timeout)).value

    @operation
    def score(self, X: Any, y: Any, *, timeout: float | None = None) -> Plan[float]:
        """How well the model predicts y from X, as the estimator's own score: accuracy or R²."""
        answer = yield from self._call("score", X, y, timeout=timeout)
        return float(answer.value.item())

    @operation
    def call(
        self,
        X: Any,
        *,
        method: str = "predict",
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[Answer]:
        """Any method by name, with the version and the runtime that answered."""
        return (yield from self._call(method, X, outputs=outputs, timeout=timeout))

    @operation
    def metadata(self) -> Plan[repository_pb.ModelVersion]:
        """The version that would answer now, with its signature."""
        return (yield from self._resolve(fresh=True))

    def _call(
        self,
        method: str,
        data: Any,
        target: Any = None,
        *,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[Answer]:
        known = str(self.name) in self.session.state.versions
        version = yield from self._resolve()
        try:
            return (yield from self._send(version, method, data, target, outputs, timeout))
        except InvalidInput:
            # The name may mean another version by now, with another signature.
            if not known:
                raise
            current = yield from self._resolve(fresh=True)
            if current.name == version.name:
                raise
            return (yield from self._send(current, method, data, target, outputs, timeout))

    def _send(
        self,
        version: repository_pb.ModelVersion,
        method: str,
        data: Any,
        target: Any,
        outputs: Sequence[str],
        timeout: float | None,
    ) -> Plan[Answer]:
        from stellwerk.client import arrays

        request = pb.PredictRequest(
            name=str(self.name),
            method=method,
            inputs=arrays.to_tensors(data, _signature(version, method), target),
            output_names=outputs,
            requires=self._requires,
        )
        answer = yield from call(request, pb.PredictResponse, timeout)
        return Answer(arrays.from_tensors(answer.outputs), answer.model_version, answer.runtime)

    def _resolve(self, fresh: bool = False) -> Plan[repository_pb.ModelVersion]:
        name, now, versions = str(self.name), time.monotonic(), self.session.state.versions
        until, version = versions.get(name, (0.0, None))
        if version is None or fresh or until < now:
            request = repository_pb.ResolveModelVersionRequest(name=name)
            found = yield from call(request, repository_pb.ResolveModelVersionResponse)
            version = found.model_version
            versions[name] = (now + BELIEVE_SECONDS, version)
        return version


def _signature(version: repository_pb.ModelVersion, method: str) -> MethodSignature | None:
    """What the method takes; None if the model's owner declared nothing."""
    if not version.signature:
        return None
    for entry in version.signature:
        if entry.method == method:
            return entry
    methods = ", ".join(entry.method for entry in version.signature)
    raise InvalidInput(f"the model has no method '{method}'; it has {methods}", method=method)
