"""The version that a name resolves to, with what its calls have in common: the queue policy, the
methods, and a check of inputs that is done once for each layout.

The layout of a tensor is its name, datatype and shape. It repeats in every request of a client;
only the length of the data is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.chassis.bounded_cache import BoundedCache
from services.router.fleet.placement import DesiredReplica
from services.router.queueing.admission import QueuePolicy
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import columns, tensors
from stellwerk.wire.errors import InvalidInput, NotImplementedHere, TooLarge
from stellwerk.wire.open_inference import DEFAULT_METHOD

# Layouts remembered for each method; a client that sends ever new shapes pays for the whole check
# each time.
_MAX_LAYOUTS = 256


class Method:
    """One method of a version."""

    def __init__(self, signature: tensor_pb2.MethodSignature, declared: bool) -> None:
        """Holds inputs to the signature if it is `declared` by the owner."""
        self.decoupled = signature.decoupled
        self._signature = signature
        self._declared = declared
        self._order = [spec.name for spec in signature.inputs]
        # Bytes of data by layout, for tensors that were found right.
        self._layouts: BoundedCache[tuple[str, str, tuple[int, ...]], int] = BoundedCache(
            _MAX_LAYOUTS
        )

    def check(self, work: work_pb2.WorkItem, sizes: Sequence[int], members: int = 0) -> None:
        """Raises InvalidInput unless inputs and outputs match the signature; puts the inputs into
        its order. `sizes` are the bytes of each input's data. With `members` the work is the form
        of a group of that many.
        """
        inputs = work.inputs
        if self._known(inputs, sizes, members or 1):
            pass
        elif members:
            # One member stands for all: they differ in their data alone, not in its length.
            columns.check(work, members)
            self._check_whole(columns.member(work, 0, members).inputs)
        else:
            self._check_whole(inputs)
        if work.outputs and self._declared:
            check_outputs(work.outputs, self._signature)
        if self._declared and len(inputs) > 1 and [tensor.name for tensor in inputs] != self._order:
            by_name = {tensor.name: tensor for tensor in inputs}
            ordered = [by_name[name] for name in self._order]
            del work.inputs[:]
            work.inputs.extend(ordered)

    def _known(self, inputs: Sequence[tensor_pb2.Tensor], sizes: Sequence[int], count: int) -> bool:
        """Returns whether each tensor has a layout that was found right before, and data of the
        size that `count` requests have.
        """
        if len(inputs) != len(self._order):
            return False
        if len(inputs) > 1 and len({tensor.name for tensor in inputs}) != len(inputs):
            return False
        layouts = self._layouts
        for tensor, given in zip(inputs, sizes, strict=True):
            size = layouts.get((tensor.name, tensor.datatype, tuple(tensor.shape)))
            if size is None or size * count != given:
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
        for tensor in inputs:
            # Each element of BYTES has a length of its own, so a layout says nothing of the data's.
            if tensor.datatype != "BYTES":
                layout = (tensor.name, tensor.datatype, tuple(tensor.shape))
                self._layouts.keep(layout, len(tensor.data))


class ModelTarget:
    """A model version to be called, and its methods."""

    def __init__(self, version: repository.ModelVersion) -> None:
        self.version = version
        self.name = version.name
        self.policy = QueuePolicy.of(version.serving)
        # The replica that serves it under its own requirements; set by the first call.
        self.replica: DesiredReplica | None = None
        self._methods: dict[str, Method] = {}

    def signature(self, method: str) -> tensor_pb2.MethodSignature:
        """Returns the method's signature, an empty one if the owner declared none. Raises
        InvalidInput for a method that the version does not have.
        """
        if not self.version.signature:
            return tensor_pb2.MethodSignature(method=method)
        for signature in self.version.signature:
            if signature.method == method:
                return signature
        known = ", ".join(f"'{signature.method}'" for signature in self.version.signature)
        raise InvalidInput(
            f"the model has no method '{method[:64]}'; it has {known}", method=method[:64]
        )

    def method(self, name: str) -> Method:
        """Returns the method of this name, the default one for "". Raises InvalidInput for a method
        that the version does not have.
        """
        method = self._methods.get(name)
        if method is None:
            declared = bool(self.version.signature)
            method = Method(self.signature(name or DEFAULT_METHOD), declared)
            # Without a signature any word is a method, so these are not kept.
            if declared:
                self._methods[name] = method
        return method

    def check(self, work: work_pb2.WorkItem, most_bytes: int, members: int = 0) -> int:
        """Returns the bytes of the inputs' data; puts the inputs into the method's order. With
        `members` the work is the form of a group of that many, and the bytes are those of one.

        Raises TooLarge for more than `most_bytes`, InvalidInput unless the work matches its method,
        and NotImplementedHere for a decoupled method that is not called over a stream.
        """
        # Once for all: a message gives a copy of its data whenever it is asked for them.
        sizes = [len(tensor.data) for tensor in work.inputs]
        size = sum(sizes) // (members or 1)
        if size > most_bytes:
            raise TooLarge(
                f"the inputs hold {size} bytes, at most {most_bytes} are allowed; send fewer rows"
                " at a time",
                limit=most_bytes,
            )
        method = self.method(work.method)
        if method.decoupled and not work.stream:
            raise NotImplementedHere(
                "this model gives several answers to a request; call it over a stream"
            )
        method.check(work, sizes, members)
        return size


def check_outputs(wanted: Sequence[str], signature: tensor_pb2.MethodSignature) -> None:
    """Raises InvalidInput if an output is asked for twice, or one that the method does not give."""
    known = {spec.name for spec in signature.outputs}
    for name in wanted:
        if name not in known:
            listed = ", ".join(f"'{spec.name}'" for spec in signature.outputs)
            raise InvalidInput(
                f"the model has no output '{name[:64]}'; it gives {listed}", output=name[:64]
            )
    if len(set(wanted)) != len(wanted):
        raise InvalidInput("an output is asked for twice")
