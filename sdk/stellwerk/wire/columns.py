"""Lays calls of one form end to end as a group, and takes groups apart. Pure.

A group holds what its members share once, as a WorkItem or WorkReply whose tensors have the shape
of one member's and the data of all members, in their order. Whatever a group says, its members
taken apart say it one by one: `member` and `member_reply` are that plain reading, and the tests
hold everything else to it. Decision 26 says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from struct import unpack_from
from typing import Any

from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import tensor_pb2
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.tensors import ITEM_SIZES, MAX_DIMENSIONS, element_count

# Members of one group. 256: the calls that a frame to the router holds.
MAX_MEMBERS = 256
# Bytes of tensors from which a call travels alone: copying them into a group would cost more than
# the message that it saves. 16 KiB: a copy of 1 µs.
MAX_MEMBER_BYTES = 16 * 1024


def may_join(work: work_pb2.WorkItem, data: Sequence[bytes]) -> bool:
    """Returns whether the work, whose inputs have these data, may be a member of a group: small,
    answered once, and with inputs whose data are as long as their shape says.

    A work of another length would have its whole group refused, so it travels alone.
    """
    if work.stream or not work.inputs:
        return False
    whole = 0
    for tensor, size in zip(work.inputs, map(len, data), strict=True):
        # Bounded first: the product of a million dimensions would take hours.
        if not size or len(tensor.shape) > MAX_DIMENSIONS:
            return False
        if size != math.prod(tensor.shape) * ITEM_SIZES.get(tensor.datatype, 0):
            return False
        whole += size
    return whole <= MAX_MEMBER_BYTES


def form_of(work: work_pb2.WorkItem) -> tuple[object, ...]:
    """Returns what the members of a group have in common, as a key: everything but the data."""
    return (
        work.method,
        work.priority,
        *work.outputs,
        *[(tensor.name, tensor.datatype, *tensor.shape) for tensor in work.inputs],
    )


def join(works: Sequence[work_pb2.WorkItem]) -> work_pb2.WorkItem:
    """Returns works of one form, at least one, as the form of a group with all their data."""
    first = works[0]
    form = work_pb2.WorkItem(method=first.method, outputs=first.outputs, priority=first.priority)
    for index, tensor in enumerate(first.inputs):
        data = b"".join([work.inputs[index].data for work in works])
        form.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data)
    return form


def check(form: work_pb2.WorkItem, count: int, *columns: Sequence[object]) -> None:
    """Raises InvalidInput unless `count` members fit the form: each input's data are as long as
    `count` times its shape says, and each column has `count` elements or none.
    """
    check_count(count, *columns)
    if not form.inputs:
        raise InvalidInput("the members of a group need inputs")
    for tensor in form.inputs:
        size = ITEM_SIZES.get(tensor.datatype, 0)
        got = len(tensor.data)
        if not size or not got:
            raise InvalidInput(
                f"tensor '{tensor.name}' of {tensor.datatype} cannot travel in a group",
                tensor=tensor.name,
            )
        expected = count * size * element_count(tensor.shape, tensor.name)
        if got != expected:
            raise InvalidInput(
                f"tensor '{tensor.name}' of {count} members needs {expected} bytes of data, got"
                f" {got}",
                tensor=tensor.name,
                expected=expected,
                got=got,
            )


def check_count(count: int, *columns: Sequence[object]) -> None:
    """Raises InvalidInput unless a group may have `count` members, and each column has `count`
    elements or none.
    """
    if not 0 < count <= MAX_MEMBERS:
        raise InvalidInput(f"a group has 1 to {MAX_MEMBERS} members, not {count}")
    if any(len(column) not in (0, count) for column in columns):
        raise InvalidInput(f"a group of {count} members has a column of another length")


def pick(form: work_pb2.WorkItem, members: Sequence[int], count: int) -> work_pb2.WorkItem:
    """Returns the form of a group of these members alone, of a checked group of `count`."""
    picked = work_pb2.WorkItem(method=form.method, outputs=form.outputs, priority=form.priority)
    picked.context.update(form.context)
    _pick(form.inputs, picked.inputs, members, count)
    return picked


def pick_reply(reply: work_pb2.WorkReply, members: Sequence[int], count: int) -> work_pb2.WorkReply:
    """Returns the reply to these members alone, of a reply to `count`. Raises InvalidInput unless
    the outputs can be taken apart.

    A reply that leads reports one call of the model, so only the first of its members leads.
    """
    picked = work_pb2.WorkReply()
    picked.CopyFrom(reply)
    picked.leads = reply.leads and 0 in members
    del picked.outputs[:]
    _pick(reply.outputs, picked.outputs, members, count)
    return picked


def member(form: work_pb2.WorkItem, index: int, count: int) -> work_pb2.WorkItem:
    """Returns one member of a checked group of `count` as work of its own."""
    return pick(form, (index,), count)


def member_reply(reply: work_pb2.WorkReply, index: int, count: int) -> work_pb2.WorkReply:
    """Returns the reply to one of `count` members as a reply of its own. Raises InvalidInput unless
    the outputs can be taken apart.
    """
    return pick_reply(reply, (index,), count)


def split(tensor: tensor_pb2.Tensor, count: int) -> list[bytes]:
    """Returns the data of each of `count` members. Raises InvalidInput unless the data are as long
    as that many members need.
    """
    data = tensor.data
    if count == 1:
        return [data]
    if tensor.datatype == "BYTES":
        return _split_texts(tensor, count)
    size, rest = divmod(len(data), count)
    if rest:
        raise _no_members(tensor, count)
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [b""] * count


def _split_texts(tensor: tensor_pb2.Tensor, count: int) -> list[bytes]:
    """Returns the data of each member of a BYTES tensor, whose elements differ in length."""
    data = tensor.data
    elements = element_count(tensor.shape, tensor.name)
    parts = []
    start = 0
    for _ in range(count):
        end = start
        for _ in range(elements):
            if end + 4 > len(data):
                raise _no_members(tensor, count)
            end += 4 + unpack_from("<I", data, end)[0]
        parts.append(data[start:end])
        start = end
    if start != len(data):
        raise _no_members(tensor, count)
    return parts


def _pick(
    tensors: Iterable[tensor_pb2.Tensor],
    picked: Any,
    members: Sequence[int],
    count: int,
) -> None:
    """Adds each tensor, with the data of these members, to the repeated field `picked`."""
    for tensor in tensors:
        parts = split(tensor, count)
        picked.add(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tensor.shape,
            data=b"".join([parts[index] for index in members]),
        )


def _no_members(tensor: tensor_pb2.Tensor, count: int) -> InvalidInput:
    return InvalidInput(
        f"the data of tensor '{tensor.name}' cannot be shared out among {count} members",
        tensor=tensor.name,
    )
