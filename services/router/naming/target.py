"""A resolved model version, ready to be called: its methods, and a check of inputs that does its
work once for each form of request. What repeats in every request of a client is the form (names,
datatypes, shapes); only the data's length is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.router.fleet.placement import Demand
from services.router.queueing.queue_policy import QueuePolicy
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.open_inference import DEFAULT_METHOD

# Forms remembered for each method; a client that sends ever new shapes pays for the whole check
# each time.
_MAX_FORMS = 256


def signature_of(version: repository.ModelVersion, method: str) -> tensor_pb2.MethodSignature:
    """The method's signature; an empty one if the owner declared nothing. Raises InvalidInput for
    an unknown method.
    """
    if not version.signature:
        return tensor_pb2.MethodSignature(method=method)
    for signature in version.signature:
        if signature.method == method:
            return signature
    known = ", ".join(f"'{signature.method}'" for signature in version.signature) or "none"
    raise InvalidInput(
        f"the model has no method '{method[:64]}'; it has {known}", method=method[:64]
    )


def check_outputs(wanted: Sequence[str], signature: tensor_pb2.MethodSignature) -> None:
    """Raises InvalidInput if an output is asked for that the method does not give, or twice."""
    known = {spec.name for spec in signature.outputs}
    for name in wanted:
        if name not in known:
            listed = ", ".join(f"'{spec.name}'" for spec in signature.outputs)
            raise InvalidInput(
                f"the model has no output '{name[:64]}'; it gives {listed}", output=name[:64]
            )
    if len(set(wanted)) != len(wanted):
        raise InvalidInput("an output is asked for twice")


class Method:
    """One method of a version."""

    def __init__(self, signature: tensor_pb2.MethodSignature, declared: bool) -> None:
        self.decoupled = signature.decoupled
        self._signature, self._declared = signature, declared
        self._order = [spec.name for spec in signature.inputs]
        # Bytes of data by name, datatype and shape, for tensors that were found right.
        self._forms: dict[tuple[str, str, tuple[int, ...]], int] = {}

    def check(self, work: work_pb2.WorkItem) -> None:
        """Raises InvalidInput unless inputs and outputs are as the signature says; puts the inputs
        into its order.
        """
        inputs = work.inputs
        if not self._known(inputs):
            self._check_whole(inputs)
        if work.outputs and self._declared:
            check_outputs(work.outputs, self._signature)
        if self._declared and len(inputs) > 1 and [tensor.name for tensor in inputs] != self._order:
            by_name = {tensor.name: tensor for tensor in inputs}
            ordered = [by_name[name] for name in self._order]
            del work.inputs[:]
            work.inputs.extend(ordered)

    def _known(self, inputs: Sequence[tensor_pb2.Tensor]) -> bool:
        """Whether every tensor has a form that was found right before, and the data for it."""
        if len(inputs) != len(self._order):
            return False
        if len(inputs) > 1 and len({tensor.name for tensor in inputs}) != len(inputs):
            return False
        forms = self._forms
        for tensor in inputs:
            if forms.get((tensor.name, tensor.datatype, tuple(tensor.shape))) != len(tensor.data):
                return False
        return True

    def _check_whole(self, inputs: Sequence[tensor_pb2.Tensor]) -> None:
        if not self._declared:
            if len({tensor.name for tensor in inputs}) != len(inputs):
                raise InvalidInput("an input is given twice")
            for tensor in inputs:
                tensors.check(tensor)
            return
        tensors.check_against(inputs, self._signature.inputs)
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        for tensor in inputs:
            # The elements of BYTES say themselves how long they are, so their form says nothing.
            if tensor.datatype != "BYTES":
                self._forms[(tensor.name, tensor.datatype, tuple(tensor.shape))] = len(tensor.data)


class Callee:
    """One version and its methods."""

    def __init__(self, version: repository.ModelVersion) -> None:
        self.version = version
        self.name = version.name
        self.policy = QueuePolicy.of(version.serving)
        # That it be served under its own requirements; made with the first call.
        self.demand: Demand | None = None
        self._methods: dict[str, Method] = {}

    def method(self, name: str) -> Method:
        """The method of this name. Raises InvalidInput if there is none."""
        method = self._methods.get(name)
        if method is None:
            method = Method(
                signature_of(self.version, name or DEFAULT_METHOD), bool(self.version.signature)
            )
            # Without a signature any word is a method; they are not collected.
            if self.version.signature:
                self._methods[name] = method
        return method
