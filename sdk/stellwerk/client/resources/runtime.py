"""Calls models: `runtime.model("iris").predict(X)`. Arrays go out and come back with the dtypes and
shapes of the model's signature.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.client.errors import InvalidInput
from stellwerk.client.naming import model_name
from stellwerk.client.resources.requirements import requirements
from stellwerk.client.resources.resource import Resource, S
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Plan, call
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb
from stellwerk.router.v1 import router_service_pb2 as pb
from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.type.v1.tensor_pb2 import MethodSignature
from stellwerk.wire import names

# Seconds for which a client takes a name to stand for the version that it stood for last. A name
# may come to stand for another version at any time; the platform checks each call against the
# version that it calls, so an old signature costs one more call and no wrong answer.
SIGNATURE_SECONDS = 60.0


class Runtime(Resource[S]):
    """The runtimes that models run on, or those of them that meet requirements."""

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
        """Returns the runtimes that meet these requirements and those of `self`.

        `gpu=1` asks for a CUDA device, `accelerator` for a kind of device such as "cuda",
        `accelerator_memory` and `memory` for bytes of a device and of the runtime, `cpu` for cores.
        Sizes are numbers of bytes, or text such as "2GiB" and "500MB". `label="west"` or
        `labels={"zone": "west"}` asks for a runtime started with that label,
        `frameworks={"torch": ">=2.4"}` for versions. Sends nothing. Raises InvalidInput for a size
        or number that is none; calls raise RequirementUnmet if no runtime has all of it.
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
        """Returns a model to call.

        `name` is "iris", in the client's bucket, or "bucket/iris". The model's version is
        `version`, or what `alias` points to, or what the alias "default" points to, or the newest.
        Sends nothing. Raises InvalidInput for a text that is no name, or for both a version and an
        alias.
        """
        return RuntimeModel(
            self.session, model_name(name, self._bucket, version, alias), self._requires
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """The outputs of one call, with the version and the runtime that computed them."""

    # A numpy array, or a dict of arrays by output name if the method has several outputs.
    value: Any
    # Such as "buckets/default/models/iris/versions/3".
    model_version: str
    # Such as "runtimes/runtime-1".
    runtime: str


class RuntimeModel(Resource[S]):
    """A stored model that is called like a local one.

    `X` of each method is a numpy array, a pandas DataFrame, a torch tensor or nested lists: rows ×
    features for a scikit-learn model, in general the shape of the model's signature with the batch
    first. A model with several inputs takes a dict of these by input name, or a DataFrame with
    these columns. Values are converted to the signature's dtype only if that loses nothing; a
    DataFrame's columns are put into the signature's order.

    Results are new numpy arrays that may be written to, with the signature's dtype and one row for
    each row of `X`, in the same order; text is an array of str. A method with several outputs
    returns a dict of arrays by output name.

    `timeout` is in seconds, retries included; None is the client's. All methods raise:

    - InvalidInput if `X` does not fit the signature, or if the model lacks the method
    - ModelNotFound, VersionNotFound or AliasNotFound, NotPermitted
    - RequirementUnmet if no runtime has what the model or the call requires
    - ModelFailed if the model's own code raises
    - Overloaded; its `retry_after` says when to come back
    - Unavailable and DeadlinePassed
    """

    def __init__(self, session: S, name: names.ModelName, requires: Requirements) -> None:
        super().__init__(session)
        self.name = name
        self._requires = requires

    @operation
    def predict(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Returns the model's predictions: shape (rows,) for a classifier or a regressor of one
        target, (rows, targets) for several, the output's shape for other models.
        """
        return (yield from self._call("predict", X, timeout=timeout)).value

    @operation
    def predict_proba(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Returns class probabilities: FP64 of shape (rows, classes), classes in the
        model's order.
        """
        return (yield from self._call("predict_proba", X, timeout=timeout)).value

    @operation
    def transform(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Returns the transformed rows: shape (rows, features of the output)."""
        return (yield from self._call("transform", X, timeout=timeout)).value

    @operation
    def decision_function(self, X: Any, *, timeout: float | None = None) -> Plan[Any]:
        """Returns confidences as the estimator's own decision_function does: shape (rows,) for two
        classes, (rows, classes) for more.
        """
        return (yield from self._call("decision_function", X, timeout=timeout)).value

    @operation
    def score(self, X: Any, y: Any, *, timeout: float | None = None) -> Plan[float]:
        """Returns how well the model predicts `y` (shape (rows,)) from `X`: the accuracy of a
        classifier, R² of a regressor.
        """
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
    ) -> Plan[Prediction]:
        """Calls the method of this name; returns its outputs with the version and the runtime.

        `outputs` names the outputs to return; none named are all.
        """
        return (yield from self._call(method, X, outputs=outputs, timeout=timeout))

    @operation
    def metadata(self) -> Plan[repository_pb.ModelVersion]:
        """Returns the version that the name stands for now, with its signature."""
        return (yield from self._resolve(fresh=True))

    def _call(
        self,
        method: str,
        data: Any,
        target: Any = None,
        *,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[Prediction]:
        known = str(self.name) in self.session.state.versions
        version = yield from self._resolve()
        try:
            return (yield from self._send(version, method, data, target, outputs, timeout))
        except InvalidInput:
            # The name may stand for another version by now, with another signature.
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
    ) -> Plan[Prediction]:
        # Imported here, so that a client which calls no model does not wait for numpy.
        from stellwerk.client import arrays

        request = pb.PredictRequest(
            name=str(self.name),
            method=method,
            inputs=arrays.to_tensors(data, _signature(version, method), target),
            output_names=outputs,
            requires=self._requires,
        )
        answer = yield from call(request, pb.PredictResponse, timeout)
        return Prediction(arrays.from_tensors(answer.outputs), answer.model_version, answer.runtime)

    def _resolve(self, fresh: bool = False) -> Plan[repository_pb.ModelVersion]:
        name = str(self.name)
        now = time.monotonic()
        versions = self.session.state.versions
        until, version = versions.get(name, (0.0, None))
        if version is None or fresh or until < now:
            request = repository_pb.ResolveModelVersionRequest(name=name)
            found = yield from call(request, repository_pb.ResolveModelVersionResponse)
            version = found.model_version
            versions[name] = (now + SIGNATURE_SECONDS, version)
        return version


def _signature(version: repository_pb.ModelVersion, method: str) -> MethodSignature | None:
    """Returns what the method takes, None for a model stored without a signature. Raises
    InvalidInput if the signature lacks the method.
    """
    if not version.signature:
        return None
    for entry in version.signature:
        if entry.method == method:
            return entry
    methods = ", ".join(entry.method for entry in version.signature)
    raise InvalidInput(f"the model has no method '{method}'; it has {methods}", method=method)
