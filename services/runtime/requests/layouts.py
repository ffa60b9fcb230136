"""The form of a request: everything about it but its rows. It is checked once, then remembered.

Requests of the same form can be joined by laying their bytes end to end; of each only the length is
left to check.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from services.runtime.formats.port import Array, Signature, signatures
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.batchability import OPTION, Joining, Method, joining
from services.runtime.requests.request import NEVER, InHand, Request
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput

# More than any honest set of callers uses; what comes beyond begins the memory anew.
_REMEMBERED = 256
_UNDECLARED = Signature()


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a form. A part of it is the bytes of some rows, or an array where `row_bytes` is
    0.
    """

    name: str
    datatype: str = ""
    # The dimensions behind the first.
    trailing: tuple[int, ...] = ()
    row_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """Method, wanted outputs and inputs. Two forms are the same only if they are one object."""

    method: Method
    outputs: tuple[str, ...]
    fields: tuple[Field, ...]
    # Whether its requests have rows that could lie end to end with those of others.
    by_rows: bool


class Forms:
    """The forms in which one version is asked."""

    def __init__(self, version: repository_pb2.ModelVersion, policy: BatchPolicy) -> None:
        self._format = version.format
        self._mode = version.format_options.get(OPTION, "")
        self._policy = policy
        self._signatures = signatures(version)
        self._methods: dict[str, Method] = {}
        self._forms: dict[Hashable, Form] = {}

    def declared(self) -> list[tuple[bool, Signature]]:
        """The declared methods, each with whether its calls may be joined; "predict" where none
        is.
        """
        names = list(self._signatures) or ["predict"]
        methods = [self._method(name) for name in names]
        return [(method.joining is not Joining.NEVER, method.signature) for method in methods]

    def admit(self, item: work_pb2.WorkItem, work: InHand) -> Request:
        """The item as a request. Raises InvalidInput.

        The router checked it too; a runtime trusts nobody. `timeout_ms` counts from the sending,
        and clocks of machines differ, so the deadline is reckoned from the arrival; the broker has
        already dropped what expired in its queue.
        """
        given = item.inputs
        parts: Sequence[bytes | Array]
        # One input of numbers is the rule, and this runs for each item of each message.
        if len(given) == 1:
            tensor = given[0]
            shape, data = tensor.shape[:], tensor.data
            key: Hashable = (
                item.method,
                tensor.name,
                tensor.datatype,
                len(shape),
                *shape[1:],
                *item.outputs[:],
            )
            form = self._forms.get(key) or self._new(item, key)
            size = form.fields[0].row_bytes
            if size and form.by_rows and len(data) == shape[0] * size and data:
                rows, parts = shape[0], (data,)
            else:
                form, rows, parts = _parts(item, form)
        else:
            key = _key(item)
            form, rows, parts = _parts(item, self._forms.get(key) or self._new(item, key))
        timeout = item.timeout_ms
        return Request(
            item.id,
            form,
            rows,
            parts,
            work,
            item,
            work.received + timeout / 1000 if timeout else NEVER,
            self._policy.priority(item.priority),
        )

    def _method(self, name: str) -> Method:
        known = self._methods.get(name)
        if known is None:
            if len(self._methods) >= _REMEMBERED:
                self._methods.clear()
            signature = self._signatures.get(name, _UNDECLARED)
            none = self._policy.max_rows == 1
            may = Joining.NEVER if none else joining(self._format, name, signature, self._mode)
            known = self._methods[name] = Method(name, signature, may)
        return known

    def _new(self, item: work_pb2.WorkItem, key: Hashable) -> Form:
        """Checks an item of a form not seen before, and remembers the form if further ones need
        only a look.
        """
        method = self._method(item.method)
        _check(item, method.signature)
        fields = tuple(_field(tensor) for tensor in item.inputs)
        by_rows = (
            bool(fields) and all(field.datatype for field in fields) and _free(method.signature)
        )
        form = Form(method, tuple(item.outputs), fields, by_rows)
        if by_rows:
            if len(self._forms) >= _REMEMBERED:
                self._forms.clear()
            self._forms[key] = form
        return form


def _check(item: work_pb2.WorkItem, signature: Signature) -> None:
    if signature.inputs:
        tensors.check_against(item.inputs, signature.inputs)
        return
    for tensor in item.inputs:
        tensors.check(tensor)
    if len({tensor.name for tensor in item.inputs}) != len(item.inputs):
        raise InvalidInput("an input is given twice")


def _field(tensor: tensor_pb2.Tensor) -> Field:
    """The field of a tensor with rows; one without datatype if it has none."""
    shape = tuple(tensor.shape)
    if not shape:
        return Field(tensor.name)
    trailing = shape[1:]
    size = tensors.element_count(trailing, tensor.name) * tensors.ITEM_SIZES.get(tensor.datatype, 0)
    if not size and tensor.datatype != "BYTES":
        return Field(tensor.name)  # rows that take no bytes cannot be counted by their length
    return Field(tensor.name, tensor.datatype, trailing, size)


def _free(signature: Signature) -> bool:
    """Whether the signature leaves the number of rows open, so that a form's check holds for
    any.
    """
    return all(len(spec.shape) > 0 and spec.shape[0] == -1 for spec in signature.inputs)


def _key(item: work_pb2.WorkItem) -> Hashable:
    """What distinguishes forms: all but the first dimension and the data."""
    fields = [
        (tensor.name, tensor.datatype, len(tensor.shape), *tensor.shape[1:])
        for tensor in item.inputs
    ]
    return item.method, tuple(fields), *item.outputs


def _parts(item: work_pb2.WorkItem, form: Form) -> tuple[Form, int, Sequence[bytes | Array]]:
    """The item's form, its rows and its parts. Raises InvalidInput."""
    given = item.inputs
    if not form.by_rows:
        return _alone(item, form)
    counts = {tensor.shape[0] for tensor in given}
    rows = counts.pop()
    sizes = [rows * field.row_bytes for field in form.fields]
    if (
        counts
        or rows <= 0
        or any(size and size != len(t.data) for size, t in zip(sizes, given, strict=True))
    ):
        _check(
            item, form.method.signature
        )  # it only has a form that was found good in another item
        return _alone(item, form)
    return (
        form,
        rows,
        [t.data if size else tensors.to_numpy(t) for size, t in zip(sizes, given, strict=True)],
    )


def _alone(item: work_pb2.WorkItem, like: Form) -> tuple[Form, int, Sequence[Array]]:
    """An item that is not to lie behind others: its form, its rows if its inputs agree on them, its
    arrays.
    """
    arrays = [tensors.to_numpy(tensor) for tensor in item.inputs]
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    fields = tuple(Field(tensor.name) for tensor in item.inputs)
    rows = counts.pop() if len(counts) == 1 else 0
    return Form(like.method, like.outputs, fields, by_rows=False), rows, arrays
