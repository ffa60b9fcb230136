"""Checks what a caller declares about a new version: every field has a form and a bound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from services.repository.catalogue.formats import check_format
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.type.v1 import requirements_pb2, serving_pb2, tensor_pb2
from stellwerk.wire import tensors
from stellwerk.wire.errors import InvalidInput, TooLarge

# Bounds of single fields, in characters and entries; MAX_SPEC_BYTES bounds them all together.
MAX_DESCRIPTION = 8 * 1024
MAX_LABELS = 64
MAX_LABEL_VALUE = 128
MAX_ENTRIES = 256
MAX_ENTRY_VALUE = 64 * 1024
MAX_METHODS = 32
MAX_TENSORS = 256
MAX_COLUMNS = 20_000
MAX_TEXT = 256
# Bytes of the whole message; MongoDB refuses a document of more than 16 MB.
MAX_SPEC_BYTES = 1024 * 1024
MAX_ACCELERATORS = 1024

# Bounds of the serving policy. They keep a mistyped number from exhausting the memory of a router
# or a runtime; they are chosen, not measured.
MAX_BATCH_ROWS = 65_536
MAX_PREFERRED_SIZES = 32
MAX_DELAY_US = 10_000_000
MAX_QUEUE_REQUESTS = 1_000_000
MAX_PRIORITIES = 100
MAX_TIMEOUT_MS = 24 * 3600 * 1000
MAX_WARMUP_CALLS = 16

# Field of the serving policy → its largest value; every integer field stands here, a test sees to
# it. `default_priority` is bounded by `priority_levels`.
SERVING_BOUNDS = {
    "max_batch_size": MAX_BATCH_ROWS,
    "max_queue_delay_us": MAX_DELAY_US,
    "max_queue_size": MAX_QUEUE_REQUESTS,
    "priority_levels": MAX_PRIORITIES,
    "default_timeout_ms": MAX_TIMEOUT_MS,
    "latency_objective_ms": MAX_TIMEOUT_MS,
}

_LABEL_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._:/ -]{0,126}[A-Za-z0-9_])?")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_spec(given: pb.ModelVersion, max_artifact_bytes: int) -> pb.ModelVersion:
    """Returns a checked copy of `given` without its output-only fields. Raises InvalidInput, and
    TooLarge for a declared size over `max_artifact_bytes` or a message over MAX_SPEC_BYTES.
    """
    spec = pb.ModelVersion()
    spec.CopyFrom(given)
    for field in ("name", "version", "create_time", "creator"):
        spec.ClearField(field)
    if spec.ByteSize() > MAX_SPEC_BYTES:
        raise TooLarge(
            f"all fields of a version may have {MAX_SPEC_BYTES} bytes together; shorten some",
            limit=MAX_SPEC_BYTES,
        )
    check_format(spec.format)
    if spec.sha256 and not _SHA256.fullmatch(spec.sha256):
        raise InvalidInput("sha256 must be 64 lower-case hex digits", field="sha256")
    _check_size(spec.size_bytes, max_artifact_bytes)
    if len(spec.description) > MAX_DESCRIPTION or "\0" in spec.description:
        raise InvalidInput(
            f"description may have {MAX_DESCRIPTION} characters and no NUL", field="description"
        )
    check_labels(spec.labels, "labels")
    _check_entries(spec.metadata, "metadata")
    _check_entries(spec.format_options, "format_options")
    _check_signature(spec.signature)
    _check_requires(spec.requires)
    _check_serving(spec)
    return spec


def _check_size(size: int, limit: int) -> None:
    if size < 0:
        raise InvalidInput("size_bytes must not be negative", field="size_bytes")
    if size > limit:
        raise TooLarge(
            f"an artifact may have {limit} bytes, this one would have {size}",
            limit=limit,
            size=size,
        )


def _is_text(value: str, limit: int = MAX_TEXT) -> bool:
    return 0 < len(value) <= limit and value.isprintable()


def check_labels(labels: Mapping[str, str], field: str) -> None:
    """Checks labels: keys of letters, digits and . _ / -, short printable values. Raises
    InvalidInput naming `field`.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidInput(f"{field} may have {MAX_LABELS} entries", field=field)
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidInput(
                f"a key of {field} must be 1 to 63 letters, digits, '.', '_', '/' or '-', "
                "beginning and ending with a letter or digit",
                field=field,
            )
        if len(value) > MAX_LABEL_VALUE or not value.isprintable():
            raise InvalidInput(
                f"{field}.{key} must be at most {MAX_LABEL_VALUE} printable characters",
                field=f"{field}.{key}",
            )


def _check_entries(entries: Mapping[str, str], field: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise InvalidInput(f"{field} may have {MAX_ENTRIES} entries", field=field)
    for key, value in entries.items():
        if not _KEY.fullmatch(key):
            raise InvalidInput(
                f"a key of {field} must be 1 to 128 letters, digits, spaces or any of . _ : / -, "
                "beginning and ending with a letter, a digit or '_'",
                field=field,
            )
        if len(value) > MAX_ENTRY_VALUE or "\0" in value:
            raise InvalidInput(
                f"{field}.{key} may have {MAX_ENTRY_VALUE} characters and no NUL",
                field=f"{field}.{key}",
            )


def _check_signature(signature: Iterable[tensor_pb2.MethodSignature]) -> None:
    methods = list(signature)
    if len(methods) > MAX_METHODS:
        raise InvalidInput(f"a signature may have {MAX_METHODS} methods", field="signature")
    _check_unique([method.method for method in methods], "method")
    for method in methods:
        if not _METHOD.fullmatch(method.method):
            raise InvalidInput(
                "a method of a signature is named by up to 63 letters, digits and '_'",
                field="signature",
            )
        for specs in (method.inputs, method.outputs):
            if len(specs) > MAX_TENSORS:
                raise InvalidInput(
                    f"a method may have {MAX_TENSORS} inputs and outputs each", field="signature"
                )
            _check_unique([spec.name for spec in specs], "tensor")
            for spec in specs:
                _check_tensor(spec)


def _check_unique(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise InvalidInput(f"a signature names a {what} twice", field="signature")


def _check_tensor(spec: tensor_pb2.TensorSpec) -> None:
    if not _is_text(spec.name):
        raise InvalidInput(
            f"a tensor's name must be 1 to {MAX_TEXT} printable characters", field="signature"
        )
    if spec.datatype not in tensors.ALL_DATATYPES:
        raise InvalidInput(
            f"tensor '{spec.name}' has no known datatype; known are"
            f" {', '.join(sorted(tensors.ALL_DATATYPES))}",
            field="signature",
            tensor=spec.name,
        )
    if any(dimension < -1 for dimension in spec.shape):
        raise InvalidInput(
            f"tensor '{spec.name}' has a dimension below -1; -1 stands for any size",
            field="signature",
            tensor=spec.name,
        )
    tensors.element_count([max(dimension, 0) for dimension in spec.shape], spec.name)
    if not spec.columns:
        return
    if len(spec.columns) > MAX_COLUMNS or not all(_is_text(column) for column in spec.columns):
        raise InvalidInput(
            f"tensor '{spec.name}' may have {MAX_COLUMNS} columns, each of 1 to {MAX_TEXT}"
            " printable characters",
            field="signature",
            tensor=spec.name,
        )
    if not spec.shape or spec.shape[-1] not in (-1, len(spec.columns)):
        raise InvalidInput(
            f"tensor '{spec.name}' has {len(spec.columns)} columns; its last dimension must be that"
            " number or -1",
            field="signature",
            tensor=spec.name,
        )


def _check_requires(requires: requirements_pb2.Requirements) -> None:
    if requires.accelerator_count > MAX_ACCELERATORS:
        raise InvalidInput(
            f"requires.accelerator_count may be {MAX_ACCELERATORS} at most", field="requires"
        )
    if requires.accelerator_kind and not _METHOD.fullmatch(requires.accelerator_kind):
        raise InvalidInput(
            "requires.accelerator_kind must be a word such as 'cuda'", field="requires"
        )
    check_labels(requires.labels, "requires.labels")
    if len(requires.frameworks) > MAX_LABELS:
        raise InvalidInput(f"requires.frameworks may have {MAX_LABELS} entries", field="requires")
    for package, specifier in requires.frameworks.items():
        if not _PACKAGE.fullmatch(package) or not _is_specifier(specifier):
            raise InvalidInput(
                "requires.frameworks must map package names to version specifiers such as"
                ' ">=2.4,<3"',
                field="requires",
            )


def _is_specifier(value: str) -> bool:
    try:
        return len(value) <= MAX_LABEL_VALUE and bool(SpecifierSet(value) or True)
    except InvalidSpecifier:
        return False


def _check_serving(version: pb.ModelVersion) -> None:
    """Checks `version.serving`. Raises InvalidInput for a number out of range, and for a warm-up
    call that does not fit the version's signature.
    """
    serving = version.serving
    for field, limit in SERVING_BOUNDS.items():
        if getattr(serving, field) > limit:
            raise InvalidInput(f"serving.{field} may be {limit} at most", field=f"serving.{field}")
    if serving.default_priority > serving.priority_levels:
        raise InvalidInput(
            "serving.default_priority must be one of serving.priority_levels",
            field="serving.default_priority",
        )
    _check_sizes(serving)
    if len(serving.warmup) > MAX_WARMUP_CALLS:
        raise InvalidInput(
            f"serving.warmup may have {MAX_WARMUP_CALLS} calls", field="serving.warmup"
        )
    for call in serving.warmup:
        _check_warmup(call, version)


def _check_sizes(serving: serving_pb2.ServingPolicy) -> None:
    sizes = list(serving.preferred_batch_sizes)
    highest = serving.max_batch_size or MAX_BATCH_ROWS
    if (
        len(sizes) > MAX_PREFERRED_SIZES
        or any(not 0 < size <= highest for size in sizes)
        or len(set(sizes)) != len(sizes)
    ):
        raise InvalidInput(
            f"serving.preferred_batch_sizes must be up to {MAX_PREFERRED_SIZES} different numbers"
            f" from 1 to {highest}",
            field="serving.preferred_batch_sizes",
        )


def _check_warmup(call: serving_pb2.WarmupCall, version: pb.ModelVersion) -> None:
    method = call.method or "predict"
    if not version.signature:
        for tensor in call.inputs:
            tensors.check(tensor)
        return
    for signature in version.signature:
        if signature.method == method:
            tensors.check_against(call.inputs, signature.inputs)
            return
    raise InvalidInput(
        f"serving.warmup calls the method '{method[:64]}', which the signature lacks",
        method=method[:64],
    )
