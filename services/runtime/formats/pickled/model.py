"""Calls unpickled estimators, whose methods may be generators that give any number of answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from services.runtime.formats.port import (
    Array,
    Arrays,
    Signature,
    not_streaming,
    signatures,
    streaming_only,
)
from services.runtime.formats.sklearn.model import (
    METHODS,
    EstimatorModel,
    to_features,
    to_outputs,
)
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2


class PickledModel(EstimatorModel):
    """An estimator whose methods may be generators."""

    def __init__(
        self, estimator: Any, version: repository_pb2.ModelVersion, memory_bytes: int
    ) -> None:
        super().__init__(estimator, signatures(version), memory_bytes)
        declared = {entry.method for entry in version.signature if entry.decoupled}
        self.streams = frozenset(
            name
            for name in (*METHODS, *declared)
            if _is_stream(estimator, name, declared=name in declared)
        )

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls a method that gives one answer, as EstimatorModel does.

        Raises NotImplementedHere for a streaming method.
        """
        if method in self.streams:
            raise streaming_only(method)
        return super().call(method, inputs)

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """Returns the answers of a streaming method, each named and typed as one of `call` is."""
        if method not in self.streams:
            raise not_streaming(method)
        signature = self._signatures.get(method, Signature())
        fitted_names = getattr(self._estimator, "feature_names_in_", None)
        features = to_features(inputs, signature, fitted_names)
        return self._iterate(getattr(self._estimator, method)(features), method, signature)

    def _iterate(
        self, answers: Any, method: str, signature: Signature
    ) -> Iterator[dict[str, Array]]:
        try:
            for answer in answers:
                yield to_outputs(method, answer, signature)
        finally:
            if hasattr(answers, "close"):
                answers.close()


def _is_stream(estimator: Any, name: str, *, declared: bool) -> bool:
    """Returns whether a public method is a generator, or declared as decoupled by its owner."""
    method = None if name.startswith("_") else getattr(estimator, name, None)
    return callable(method) and (declared or inspect.isgeneratorfunction(method))
