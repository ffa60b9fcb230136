"""Reads bodies whose like was read before: a client repeats everything but the data and the id.

The skeleton of a body is the JSON around its data. It is learned from a body that `infer_request`
read in full, and tried: with other data in it, the full reading must find exactly these. From then
on only the data of such bodies are parsed and checked. A body that does not fit a skeleton in every
byte is not read here, but in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from prometheus_client import CollectorRegistry

from services.api_gateway.open_inference import infer_request
from services.api_gateway.open_inference.infer_request import OutputForm
from services.api_gateway.open_inference.tensors_json import TensorReader
from services.api_gateway.upstream.call_groups import CallForm, CallForms
from services.chassis.bounded_cache import BoundedCache
from services.chassis.telemetry import LookUps
from stellwerk.job.v1 import work_pb2
from stellwerk.wire import columns
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.tensors import data_of, element_count

# Skeletons that are kept, and beginnings of bodies that were seen once and are learned when they
# come again: a client that repeats nothing must not pay for learning.
_MAX_SKELETONS = 2048
# Bytes of JSON around the data up to which a body is learned: 2,048 skeletons take 16 MiB at most.
_MAX_BYTES = 4 * 1024
_DATA = b'"data":'
# An id as the first key of a body, or as the last one: printable ASCII that JSON needs not escape.
_TEXT = rb'"id":\s?"([ !#-\[\]-~]{0,256})"'
_ID_FIRST = re.compile(rb"\{" + _TEXT + rb",")
_ID_LAST = re.compile(rb",\s?" + _TEXT + rb"\}\Z")
# Bytes at the end of a body in which an id is looked for.
_ID_BYTES = 280


class Skeleton:
    """The JSON around the data of bodies that are alike, and what they ask for."""

    __slots__ = ("form", "outputs", "pieces", "readers", "request", "sizes")

    def __init__(
        self,
        request: InferRequest,
        outputs: OutputForm,
        form: CallForm,
        pieces: Sequence[bytes],
        sizes: Sequence[int] | None,
    ) -> None:
        """Takes the JSON after each input's data as `pieces`; with binary data, their `sizes`."""
        # The request without its id and its data, for whoever writes the response.
        self.request = InferRequest(
            request.model,
            request.version,
            "",
            form.work,
            request.timeout_us,
            request.classes,
            request.empty_final,
        )
        self.outputs = outputs
        self.form = form
        self.pieces = pieces
        self.sizes = sizes
        self.readers = [
            TensorReader(tensor.name, tensor.datatype, list(tensor.shape))
            for tensor in form.work.inputs
        ]


class ReadBody(NamedTuple):
    """A body that was read by its skeleton: the id it gives, and the data of each input."""

    skeleton: Skeleton
    id: str
    data: Sequence[bytes]


class _Parts(NamedTuple):
    """A body's JSON without its id: where it was, the id, and the JSON's bounds."""

    where: str
    id: bytes
    start: int
    end: int


# What finds a skeleton: model, version, where the id is, and the JSON up to the first data.
_Key = tuple[str, str, str, bytes]


class Skeletons:
    """The skeletons that were learned, by model and by the beginning of the body."""

    def __init__(self, forms: CallForms, metrics: CollectorRegistry | None = None) -> None:
        """Counts its look-ups in `metrics`, if these are given."""
        self._forms = forms
        self._known: BoundedCache[_Key, Skeleton] = BoundedCache(_MAX_SKELETONS)
        self._seen_once: BoundedCache[_Key, None] = BoundedCache(_MAX_SKELETONS)
        # Bodies that were read by a skeleton, and those that were not.
        self.hits = 0
        self.misses = 0
        if metrics is not None:
            LookUps(
                metrics,
                "stellwerk_infer_skeletons",
                "Inference bodies looked up among those whose like was read before",
                lambda: (self.hits, self.misses),
            )

    def read(
        self, body: bytes, model: str, version: str, json_size: int | None = None
    ) -> ReadBody | None:
        """Reads a body as `infer_request.read_request` does; None if no skeleton fits it."""
        found = self._read(body, model, version, json_size)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def _read(
        self, body: bytes, model: str, version: str, json_size: int | None
    ) -> ReadBody | None:
        end = len(body) if json_size is None else json_size
        parts = _without_id(body, end)
        if json_size is None:
            first = body.find(_DATA, parts.start)
            if first < 0:
                return None
            first += len(_DATA)
        else:
            first = parts.end
        skeleton = self._known.get((model, version, parts.where, body[parts.start : first]))
        if skeleton is None:
            return None
        if skeleton.sizes is not None:
            data = _sliced(body, end, skeleton.sizes)
        else:
            data = _parsed(body, first, parts.end, skeleton)
        return None if data is None else ReadBody(skeleton, parts.id.decode("ascii"), data)

    def learn(
        self, body: bytes, request: InferRequest, outputs: OutputForm, json_size: int | None = None
    ) -> None:
        """Learns the skeleton of a body that was read as this request, when its beginning is seen
        for the second time.
        """
        data = data_of(request.work.inputs)
        if not columns.may_join(request.work, data):
            return
        end = len(body) if json_size is None else json_size
        parts = _without_id(body, end)
        if json_size is None:
            pieces = _pieces(body, parts, request.work)
            sizes = None
        else:
            pieces = [body[parts.start : parts.end]]
            sizes = [*map(len, data)]
        if not pieces or sum(map(len, pieces)) > _MAX_BYTES:
            return
        key = (request.model, request.version, parts.where, pieces[0])
        if key not in self._seen_once:
            self._seen_once.keep(key, None)
        elif _proven(pieces, body[end:], parts.where, request, outputs):
            form = self._forms.of(request)
            self._known.keep(key, Skeleton(request, outputs, form, pieces[1:], sizes))


def _without_id(body: bytes, end: int) -> _Parts:
    """Finds an id at the beginning or at the end of the body's first `end` bytes, its JSON."""
    if (found := _ID_FIRST.match(body, 0, end)) is not None:
        return _Parts("first", found[1], found.end(), end)
    tail = max(0, end - _ID_BYTES)
    if body.find(b'"id"', tail, end) >= 0:
        found = _ID_LAST.search(body, tail, end)
        if found is not None:
            return _Parts("last", found[1], 0, found.start())
    return _Parts("", b"", 0, end)


def _parsed(body: bytes, at: int, end: int, skeleton: Skeleton) -> list[bytes] | None:
    """Returns the data between the skeleton's pieces from `at` on; None unless all fits."""
    data = []
    last = len(skeleton.pieces) - 1
    for index, piece in enumerate(skeleton.pieces):
        if index < last:
            stop = body.find(piece, at, end)
            if stop < 0:
                return None
        else:
            stop = end - len(piece)
            if stop < at or not body.endswith(piece, stop, end):
                return None
        try:
            values = orjson.loads(body[at:stop])
            data.append(skeleton.readers[index].read(values))
        except (orjson.JSONDecodeError, ServiceError):
            return None
        at = stop + len(piece)
    return data


def _sliced(body: bytes, at: int, sizes: Sequence[int]) -> list[bytes] | None:
    """Returns the binary data from `at` on; None unless they are as long as these sizes."""
    if at + sum(sizes) != len(body):
        return None
    data = []
    for size in sizes:
        data.append(body[at : at + size])
        at += size
    return data


def _pieces(body: bytes, parts: _Parts, work: work_pb2.WorkItem) -> list[bytes]:
    """Returns the JSON before the data of the first input, between them, and after the last; none
    unless it has one "data" for each.
    """
    pieces = []
    at = parts.start
    for tensor in work.inputs:
        found = body.find(_DATA, at, parts.end)
        stop = _end_of_list(body, found + len(_DATA), parts.end)
        if found < 0 or stop < 0 or not tensor.data:
            return []
        pieces.append(body[at : found + len(_DATA)])
        at = stop
    return [*pieces, body[at : parts.end]]


def _end_of_list(body: bytes, at: int, end: int) -> int:
    """Returns where the list of numbers that begins at `at` ends, -1 if there is none."""
    depth = 0
    for index in range(at, end):
        char = body[index]
        if char == 0x5B:  # [
            depth += 1
        elif char == 0x5D:  # ]
            depth -= 1
            if not depth:
                return index + 1
        elif char in b'"{}:':
            return -1
    return -1


def _proven(
    pieces: Sequence[bytes],
    binary: bytes,
    where: str,
    request: InferRequest,
    outputs: OutputForm,
) -> bool:
    """Returns whether bodies of these pieces with other data and another id are read in full as the
    same request with just these: what stands for the data is the data, and nothing else is.
    """
    for bit in (0, 1):
        expected = InferRequest(request.model, request.version, f"probe-{bit}" if where else "",
                                work_pb2.WorkItem(), request.timeout_us, request.classes,
                                request.empty_final)  # fmt: skip
        expected.work.CopyFrom(request.work)
        json = pieces[0]
        for tensor, piece in zip(expected.work.inputs, pieces[1:], strict=False):
            elements = [bool(bit) if tensor.datatype == "BOOL" else bit]
            elements *= element_count(tensor.shape)
            reader = TensorReader(tensor.name, tensor.datatype, list(tensor.shape))
            tensor.data = reader.read(elements)
            json += orjson.dumps(elements) + piece
        json = _with_id(json, expected.id.encode(), where)
        size = len(json) if binary else None
        try:
            read = infer_request.read_request(json + binary, request.model, request.version, size)
        except ServiceError:
            return False
        if read != (expected, outputs):
            return False
    return True


def _with_id(core: bytes, id: bytes, where: str) -> bytes:
    """Returns the JSON with the id where the body has it; `_without_id` takes it out again."""
    if where == "first":
        return b'{"id":"%b",%b' % (id, core)
    if where == "last":
        return b'%b,"id":"%b"}' % (core, id)
    return core
