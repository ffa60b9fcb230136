"""Cuts, closes and takes apart requests that hold several members of a group. Pure.

A group is one request as long as nothing tells its members apart: it waits, is stacked and is
answered as a whole. Wherever its members part ways, the request is cut there. All pieces share the
group's record of which members still wait for a reply, so that each is answered once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from services.runtime.requests.request import NEVER, Group, Request
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns, metadata


def open_group(given: work_pb2.WorkGroup, received: float) -> Group:
    """Returns a group that arrived at the time.monotonic() `received`; no member is answered."""
    timeouts = given.timeouts_ms[:]
    opened = bytearray(b"\1") * len(timeouts)
    return Group(
        given.id,
        given.form,
        received,
        timeouts,
        given.request_ids[:],
        given.traceparents[:],
        opened,
    )


def count(requests: Sequence[Request]) -> int:
    """Returns the number of items and members that the requests hold."""
    return len(requests) + sum(
        [len(request.members) - 1 for request in requests if request.members]
    )


def fitting(request: Request, rows: int) -> int:
    """Returns how many of the members, or whether the item (0 or 1), have at most `rows` rows."""
    if request.rows <= rows:
        return len(request.members) or 1
    return max(0, rows) * len(request.members) // request.rows


def cut(request: Request, at: int) -> tuple[Request, Request]:
    """Returns a request of the first `at` members, at least one, and one of the others."""
    members = request.members
    size = request.rows // len(members)
    parts = [_cut_part(part, len(members), at) for part in request.parts]
    return (
        _piece(request, members[:at], size * at, [first for first, _ in parts]),
        _piece(request, members[at:], size * (len(members) - at), [rest for _, rest in parts]),
    )


def pick(request: Request, places: Sequence[int]) -> Request:
    """Returns a request of the members at these places, at least one and in rising order."""
    members = request.members
    if len(places) == len(members):
        return request
    parts = [
        b"".join([_slice(part, len(members), place, place + 1) for place in places])
        for part in request.parts
    ]
    chosen = [members[place] for place in places]
    return _piece(request, chosen, request.rows // len(members) * len(places), parts)


def open_places(request: Request) -> Sequence[int]:
    """Returns the places, among the request's members, of those that wait for a reply."""
    members = request.members
    assert request.group is not None
    opened = request.group.open
    first, last = members[0], members[-1]
    # Members that follow each other are looked at in one step; nearly always all are open.
    if last - first + 1 == len(members) and opened.count(1, first, last + 1) == len(members):
        return range(len(members))
    return [place for place, member in enumerate(members) if opened[member]]


def still_open(requests: Iterable[Request]) -> list[Request]:
    """Returns the requests whose reply is still to come, without members that are answered."""
    found = []
    for request in requests:
        if not request.open:
            continue
        if request.group is None:
            found.append(request)
            continue
        places = open_places(request)
        if places:
            found.append(pick(request, places))
    return found


def close(request: Request) -> None:
    """Records that the request is answered, and each of its members."""
    request.open = False
    if request.group is not None:
        opened = request.group.open
        first, last = request.members[0], request.members[-1]
        if last - first + 1 == len(request.members):
            opened[first : last + 1] = bytes(len(request.members))
        else:
            for member in request.members:
                opened[member] = 0


def halves(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """Returns two halves of the items and members, at least two, which a request may be cut for."""
    left = count(requests) // 2
    first: list[Request] = []
    for index, request in enumerate(requests):
        number = len(request.members) or 1
        if number > left:
            if not left:
                return first, list(requests[index:])
            head, rest = cut(request, left)
            return [*first, head], [rest, *requests[index + 1 :]]
        first.append(request)
        left -= number
    return first, []


def apart(requests: Sequence[Request]) -> Sequence[Request]:
    """Returns the requests with each member in a request of its own."""
    if count(requests) == len(requests):
        return requests
    return [
        pick(request, [place]) if request.members else request
        for request in requests
        for place in range(len(request.members) or 1)
    ]


def named(request: Request, members: Collection[int]) -> list[Request]:
    """Returns a request of those of the members that still wait, if there are any."""
    places = [place for place in open_places(request) if request.members[place] in members]
    return [pick(request, places)] if places else []


def first_deadline(request: Request) -> float:
    """Returns the first deadline of the members of the request's group."""
    group = request.group
    assert group is not None
    shortest = min(filter(None, group.timeouts_ms), default=0)
    return group.received + shortest / 1000 if shortest else NEVER


def late(request: Request, now: float) -> tuple[list[Request], float]:
    """Returns a request of the waiting members whose deadline has passed, if there are any, and the
    nearest deadline of the others.
    """
    group = request.group
    assert group is not None
    places = []
    nearest = NEVER
    for place in open_places(request):
        deadline = group.deadline(request.members[place])
        if deadline <= now:
            places.append(place)
        elif deadline < nearest:
            nearest = deadline
    return [pick(request, places)] if places else [], nearest


def items_apart(group: Group) -> list[work_pb2.WorkItem]:
    """Returns each member of a checked group as an item of its own, as `columns.member` does, with
    the timeout and the context that are its own.
    """
    total = len(group.timeouts_ms)
    found = [described(group, member) for member in range(total)]
    for tensor in group.form.inputs:
        for item, data in zip(found, columns.split(tensor, total), strict=True):
            item.inputs.add(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data
            )
    return found


def described(group: Group, member: int) -> work_pb2.WorkItem:
    """Returns a member as an item without its inputs."""
    form = group.form
    item = work_pb2.WorkItem(
        method=form.method,
        outputs=form.outputs,
        priority=form.priority,
        stream=form.stream,
        timeout_ms=group.timeouts_ms[member],
        context=form.context,
    )
    # A group that is refused may have columns of any length.
    for key, column in (
        (metadata.REQUEST_ID, group.request_ids),
        (metadata.TRACEPARENT, group.traceparents),
    ):
        if member < len(column) and column[member]:
            item.context[key] = column[member]
    return item


def items_of(request: Request) -> list[work_pb2.WorkItem]:
    """Returns the item, or each member as an item without its inputs."""
    group = request.group
    if group is None:
        return [request.item]
    return [described(group, member) for member in request.members]


def _piece(request: Request, members: Sequence[int], rows: int, parts: Sequence[Any]) -> Request:
    """Returns a request of some of the members, which takes the whole one's place in a queue."""
    return Request(
        request.id,
        request.layout,
        rows,
        parts,
        request.work,
        request.item,
        request.deadline,
        request.priority,
        order=request.order,
        group=request.group,
        members=members,
    )


def _cut_part(part: Any, total: int, at: int) -> tuple[Any, Any]:
    return _slice(part, total, 0, at), _slice(part, total, at, total)


def _slice(part: Any, total: int, start: int, stop: int) -> Any:
    """Returns the data of some of `total` members, without a copy."""
    view = memoryview(part)
    size = len(view) // total
    return view[start * size : stop * size]
