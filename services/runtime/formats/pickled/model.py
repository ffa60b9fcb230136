"""Unpickled models: estimators, of which a method may be a generator and so give any number of
answers to one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from services.runtime.formats.port import (
    Array,
    Arrays,
    Signature,
    not_a_stream,
    only_a_stream,
    signatures,
)
from services.runtime.formats.sklearn.estimator import (
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
        """As an estimator's, for methods that give one answer."""
        if method in self.streams:
            raise only_a_stream(method)
        return super().call(method, inputs)

    def stream(self, method: str, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """The answers of a generator method, each with the names and types that a returned value
        would have.
        """
        if method not in self.streams:
            raise not_a_stream(method)
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
    """A generator function, or a public method that its owner declares to be decoupled."""
    method = None if name.startswith("_") else getattr(estimator, name, None)
    return callable(method) and (declared or inspect.isgeneratorfunction(method))
