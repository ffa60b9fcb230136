"""Gathers calls that wait for the next frame into groups of one form and one credential."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from services.chassis.bounded_cache import BoundedCache
from services.chassis.context import CallContext
from services.chassis.telemetry import LookUps
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire import columns
from stellwerk.wire.open_inference import InferRequest

# Forms that are remembered. Callers repeat a handful; a form that is forgotten is made anew.
_MAX_FORMS = 4096
# Members and bytes of tensors from which a group is full: a quarter of a frame. A full group waits
# for no answer, so that with many callers all processes on the way work at the same time.
FULL_MEMBERS = 64
_FULL_BYTES = 256 * 1024


class CallForm:
    """The model and the work, but for its data, that the calls of one group have in common.

    Two forms are equal only if they are the same object, so a group is found without comparing.
    """

    __slots__ = ("model", "version", "work")

    def __init__(self, model: str, version: str, work: work_pb2.WorkItem) -> None:
        """Takes over the work's form; its data stay where they are."""
        self.model = model
        self.version = version
        self.work = work_pb2.WorkItem(
            method=work.method, outputs=work.outputs, priority=work.priority
        )
        for tensor in work.inputs:
            self.work.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


class CallForms:
    """The forms that were seen, by what they say."""

    def __init__(self, metrics: CollectorRegistry | None = None) -> None:
        """Counts its look-ups in `metrics`, if these are given."""
        self._forms: BoundedCache[tuple[object, ...], CallForm] = BoundedCache(_MAX_FORMS)
        self._hits = 0
        self._misses = 0
        if metrics is not None:
            LookUps(
                metrics,
                "stellwerk_call_forms",
                "Forms of calls looked up among those that were seen before",
                lambda: (self._hits, self._misses),
            )

    def of(self, request: InferRequest) -> CallForm:
        """Returns the form of a request that may join a group."""
        key = (request.model, request.version, *columns.form_of(request.work))
        form = self._forms.get(key)
        if form is not None:
            self._hits += 1
            return form
        self._misses += 1
        form = CallForm(request.model, request.version, request.work)
        self._forms.keep(key, form)
        return form


class _Group:
    """Calls of one form and one credential, column by column."""

    __slots__ = ("credential", "data", "form", "ids", "peers", "request_ids", "size",
                 "timeouts_ms", "traceparents")  # fmt: skip

    def __init__(self, form: CallForm, credential: int) -> None:
        self.form = form
        self.credential = credential
        self.ids: list[int] = []
        self.timeouts_ms: list[int] = []
        self.request_ids: list[str] = []
        self.traceparents: list[str] = []
        self.peers: list[str] = []
        # For each input the data of each member.
        self.data: list[list[bytes]] = [[] for _ in form.work.inputs]
        # Bytes of all data.
        self.size = 0

    def field(self) -> bytes:
        """Returns the group as a field of a frame; a single call as the call that it is."""
        frame = messages.ExchangeRequest()
        if len(self.ids) == 1:
            self._add_call(frame)
        else:
            self._add_group(frame)
        return frame.SerializeToString()

    def _add_call(self, frame: messages.ExchangeRequest) -> None:
        call = frame.calls.add(
            id=self.ids[0],
            credential=self.credential,
            model=self.form.model,
            version=self.form.version,
            timeout_ms=self.timeouts_ms[0],
            request_id=self.request_ids[0],
            traceparent=self.traceparents[0],
            peer=self.peers[0],
        )
        self._fill(call.work)

    def _add_group(self, frame: messages.ExchangeRequest) -> None:
        group = frame.groups.add(
            credential=self.credential,
            model=self.form.model,
            version=self.form.version,
            ids=self.ids,
            timeouts_ms=self.timeouts_ms,
            request_ids=self.request_ids,
            traceparents=self.traceparents if any(self.traceparents) else (),
            # Callers behind one proxy have one address.
            peers=self.peers[:1] if len(set(self.peers)) == 1 else self.peers,
        )
        self._fill(group.work)

    def _fill(self, work: work_pb2.WorkItem) -> None:
        work.CopyFrom(self.form.work)
        for tensor, parts in zip(work.inputs, self.data, strict=True):
            tensor.data = b"".join(parts)


class CallGroups:
    """Calls that wait for the next frame."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Frames take `most` calls and `most_bytes` bytes of tensors, or a group more."""
        self._most = most
        self._most_bytes = most_bytes
        self._open: dict[tuple[CallForm, int], _Group] = {}
        # Groups that take no more calls.
        self.full: deque[_Group] = deque()

    def __bool__(self) -> bool:
        return bool(self._open or self.full)

    def put(
        self,
        form: CallForm,
        credential: int,
        data: Sequence[bytes],
        id: int,
        timeout_ms: int,
        call: CallContext,
    ) -> None:
        """Adds a call; `data` holds the bytes of each of the form's inputs."""
        key = (form, credential)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _Group(form, credential)
        group.ids.append(id)
        group.timeouts_ms.append(timeout_ms)
        group.request_ids.append(call.request_id)
        group.traceparents.append(call.traceparent)
        group.peers.append(call.peer)
        for column, part in zip(group.data, data, strict=True):
            column.append(part)
            group.size += len(part)
        if len(group.ids) >= FULL_MEMBERS or group.size >= _FULL_BYTES:
            del self._open[key]
            self.full.append(group)

    def take(self, *, full: bool = False) -> list[bytes]:
        """Removes the groups of the next frame and returns their fields, none if no call waits.

        With `full` it leaves groups that take more calls. Otherwise these go first: they have
        waited longer, and full groups need not wait for their turn.
        """
        fields: list[bytes] = []
        count = 0
        size = 0
        while count < self._most and size < self._most_bytes:
            if self._open and not full:
                group = self._first()
            elif self.full:
                group = self.full.popleft()
            else:
                break
            fields.append(group.field())
            count += len(group.ids)
            size += group.size
        return fields

    def _first(self) -> _Group:
        """Removes and returns the group that was opened first."""
        return self._open.pop(next(iter(self._open)))
