"""Turns items and groups into requests. Each layout is checked once, then remembered: of later ones
with the same layout only the length of the data is left to check.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from services.runtime.formats.port import Array, Signature, signatures
from services.runtime.requests.batch_policy import BatchPolicy
from services.runtime.requests.batchability import (
    OPTION,
    Batchability,
    Method,
    declared_batchability,
)
from services.runtime.requests.members import items_apart
from services.runtime.requests.request import (
    NEVER,
    Group,
    InputField,
    Request,
    RequestLayout,
    WorkMessage,
)
from stellwerk.job.v1 import work_pb2
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire import columns, tensors
from stellwerk.wire.errors import InvalidInput

# Layouts, and methods, to remember for a version. Callers of one model use a handful; at this
# number the memory is cleared, so that a caller who varies names cannot fill it.
_REMEMBERED = 256
_UNDECLARED = Signature()


class RequestLayouts:
    """The request layouts of one version that were seen so far."""

    def __init__(self, version: repository_pb2.ModelVersion, policy: BatchPolicy) -> None:
        self._format = version.format
        self._batching = version.format_options.get(OPTION, "")
        # Whether requests of this version may share calls at all.
        self._batches = policy.max_rows > 1
        self._levels = policy.priority_levels
        self._default_level = policy.default_priority
        self._signatures = signatures(version)
        self._methods: dict[str, Method] = {}
        self._layouts: dict[Hashable, RequestLayout] = {}

    def declared(self) -> list[tuple[bool, Signature]]:
        """Returns each declared method's signature and whether its requests may share a call.

        A version without a signature has the method "predict".
        """
        names = list(self._signatures) or ["predict"]
        methods = [self._method(name) for name in names]
        return [
            (method.batchability is not Batchability.NEVER, method.signature) for method in methods
        ]

    def admit(self, item: work_pb2.WorkItem, work: WorkMessage) -> Request:
        """Returns the item as a request of the message. Raises InvalidInput.

        Checks what the router checked too, because a runtime trusts no peer. The deadline counts
        `timeout_ms` from the arrival, because clocks of machines differ; the broker has already
        dropped items that expired in its queue.
        """
        given = item.inputs
        parts: Sequence[bytes | Array]
        # This runs for every item of every message. Most items have one input of numbers.
        if len(given) == 1:
            tensor = given[0]
            shape = tensor.shape[:]
            data = tensor.data
            # As `_key` returns it: a call costs what all the rest of this does.
            key: Hashable = (
                item.method,
                tensor.name,
                tensor.datatype,
                len(shape),
                *shape[1:],
                *item.outputs[:],
            )
            layout = self._layouts.get(key) or self._learn(item, key)
            size = layout.fields[0].row_bytes
            if size and layout.by_rows and len(data) == shape[0] * size and data:
                rows, parts = shape[0], (data,)
            else:
                layout, rows, parts = _parts(item, layout)
        else:
            key = _key(item)
            layout, rows, parts = _parts(item, self._layouts.get(key) or self._learn(item, key))
        timeout = item.timeout_ms
        priority = item.priority
        return Request(
            item.id,
            layout,
            rows,
            parts,
            work,
            item,
            work.received + timeout / 1000 if timeout else NEVER,
            priority if 1 <= priority <= self._levels else self._default_level,
        )

    def admit_group(self, group: Group, work: WorkMessage, *, whole: bool) -> list[Request]:
        """Returns the group as one request of all its members, or as one for each member if they
        may not share a call or `whole` forbids it. Raises InvalidInput, which is every member's.

        The layout of a group is that of its members, so it is looked up and learnt as theirs.
        """
        form = group.form
        total = len(group.timeouts_ms)
        columns.check(form, total, group.request_ids, group.traceparents)
        given = form.inputs
        key = _key(form)
        layout = self._layouts.get(key) or self._learn(columns.member(form, 0, total), key)
        rows = {tensor.shape[0] if tensor.shape else 0 for tensor in given}
        if (
            not whole
            or form.stream
            or not layout.by_rows
            or layout.method.batchability is not Batchability.ALWAYS
            or len(rows) > 1
        ):
            return self._admit_members(group, work)
        timeouts = group.timeouts_ms
        priority = form.priority
        return [
            Request(
                group.id,
                layout,
                rows.pop() * total,
                tensors.data_of(given),
                work,
                form,
                work.received + max(timeouts) / 1000 if all(timeouts) else NEVER,
                priority if 1 <= priority <= self._levels else self._default_level,
                group=group,
                members=range(total),
            )
        ]

    def _admit_members(self, group: Group, work: WorkMessage) -> list[Request]:
        requests = [self.admit(item, work) for item in items_apart(group)]
        for member, request in enumerate(requests):
            request.id = group.id
            request.group = group
            request.members = (member,)
        return requests

    def _method(self, name: str) -> Method:
        known = self._methods.get(name)
        if known is None:
            if len(self._methods) >= _REMEMBERED:
                self._methods.clear()
            signature = self._signatures.get(name, _UNDECLARED)
            batchability = Batchability.NEVER
            if self._batches:
                batchability = declared_batchability(self._format, name, signature, self._batching)
            known = self._methods[name] = Method(name, signature, batchability)
        return known

    def _learn(self, item: work_pb2.WorkItem, key: Hashable) -> RequestLayout:
        """Checks an item in full and returns its layout; remembers it if items of this layout can
        be told valid by their length.
        """
        method = self._method(item.method)
        _check(item, method.signature)
        fields = tuple(_field(tensor) for tensor in item.inputs)
        by_rows = (
            bool(fields)
            and all(field.datatype for field in fields)
            and _has_open_rows(method.signature)
        )
        layout = RequestLayout(method, tuple(item.outputs), fields, by_rows)
        if by_rows:
            if len(self._layouts) >= _REMEMBERED:
                self._layouts.clear()
            self._layouts[key] = layout
        return layout


def _check(item: work_pb2.WorkItem, signature: Signature) -> None:
    """Raises InvalidInput unless the item's inputs are valid and fit the signature."""
    if signature.inputs:
        tensors.check_against(item.inputs, signature.inputs)
        return
    for tensor in item.inputs:
        tensors.check(tensor)
    if len({tensor.name for tensor in item.inputs}) != len(item.inputs):
        raise InvalidInput("an input is given twice")


def _field(tensor: tensor_pb2.Tensor) -> InputField:
    """Returns the field of a tensor; one without a datatype if the tensor has no countable rows."""
    shape = tuple(tensor.shape)
    if not shape:
        return InputField(tensor.name)
    trailing = shape[1:]
    size = tensors.element_count(trailing, tensor.name) * tensors.ITEM_SIZES.get(tensor.datatype, 0)
    if not size and tensor.datatype != "BYTES":
        return InputField(tensor.name)  # rows of zero bytes cannot be counted by their length
    dtype = tensors.DTYPES.get(tensor.datatype)
    return InputField(tensor.name, tensor.datatype, trailing, size, dtype)


def _has_open_rows(signature: Signature) -> bool:
    """Returns whether the signature allows any number of rows, so that one check holds for all."""
    return all(len(spec.shape) > 0 and spec.shape[0] == -1 for spec in signature.inputs)


def _key(item: work_pb2.WorkItem) -> Hashable:
    """Returns what tells layouts apart: everything but the first dimensions and the data."""
    if len(item.inputs) == 1:
        tensor = item.inputs[0]
        shape = tensor.shape[:]
        return (
            item.method,
            tensor.name,
            tensor.datatype,
            len(shape),
            *shape[1:],
            *item.outputs[:],
        )
    fields = [
        (tensor.name, tensor.datatype, len(tensor.shape), *tensor.shape[1:])
        for tensor in item.inputs
    ]
    return item.method, tuple(fields), *item.outputs


def _parts(
    item: work_pb2.WorkItem, layout: RequestLayout
) -> tuple[RequestLayout, int, Sequence[bytes | Array]]:
    """Returns the item's layout, number of rows and parts. Raises InvalidInput."""
    given = item.inputs
    if not layout.by_rows:
        return _unbatched_parts(item, layout)
    counts = {tensor.shape[0] for tensor in given}
    rows = counts.pop()
    sizes = [rows * field.row_bytes for field in layout.fields]
    data = tensors.data_of(given)
    if (
        counts
        or rows <= 0
        or any(size and size != len(each) for size, each in zip(sizes, data, strict=True))
    ):
        # The layout was found valid in another item; this item differs, so check it in full.
        _check(item, layout.method.signature)
        return _unbatched_parts(item, layout)
    parts = [
        each if size else tensors.to_numpy(tensor)
        for size, each, tensor in zip(sizes, data, given, strict=True)
    ]
    return layout, rows, parts


def _unbatched_parts(
    item: work_pb2.WorkItem, like: RequestLayout
) -> tuple[RequestLayout, int, Sequence[Array]]:
    """Returns a layout of its own for an item that shares no call, its rows (0 if its inputs
    disagree) and its arrays.
    """
    arrays = [tensors.to_numpy(tensor) for tensor in item.inputs]
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    fields = tuple(InputField(tensor.name) for tensor in item.inputs)
    rows = counts.pop() if len(counts) == 1 else 0
    return RequestLayout(like.method, like.outputs, fields, by_rows=False), rows, arrays
