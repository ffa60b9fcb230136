"""Compares the requirements of a model or a call with a runtime. Pure; an unmet requirement is
words for the caller, not a bool.
"""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from stellwerk.router.v1 import router_service_pb2 as router
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire.errors import InvalidInput

_GIB = 1024**3


def merge(
    a: requirements_pb2.Requirements, b: requirements_pb2.Requirements
) -> requirements_pb2.Requirements:
    """Returns requirements that include both. Raises InvalidInput where the two contradict each
    other or a version specifier is malformed.
    """
    merged = requirements_pb2.Requirements(
        accelerator_count=max(a.accelerator_count, b.accelerator_count),
        accelerator_kind=a.accelerator_kind or b.accelerator_kind,
        accelerator_memory_bytes=max(a.accelerator_memory_bytes, b.accelerator_memory_bytes),
        memory_bytes=max(a.memory_bytes, b.memory_bytes),
        cpu_cores=max(a.cpu_cores, b.cpu_cores),
    )
    if a.accelerator_kind and b.accelerator_kind and a.accelerator_kind != b.accelerator_kind:
        raise InvalidInput(
            f"the model requires a {a.accelerator_kind} accelerator, the call a"
            f" {b.accelerator_kind} one",
            field="requires.accelerator_kind",
        )
    for labels in (a.labels, b.labels):
        for key, value in labels.items():
            if merged.labels.get(key, value) != value:
                raise InvalidInput(
                    f"the model and the call require different values of label {key}",
                    field="requires.labels",
                )
            merged.labels[key] = value
    for frameworks in (a.frameworks, b.frameworks):
        for name, specifier in frameworks.items():
            _specifiers(name, specifier)
            known = merged.frameworks.get(name, "")
            merged.frameworks[name] = ",".join(
                sorted({part for part in (known, specifier) if part})
            )
    return merged


def _specifiers(name: str, text: str) -> SpecifierSet:
    try:
        return SpecifierSet(text, prereleases=True)
    except InvalidSpecifier:
        raise InvalidInput(
            f"'{text[:40]}' is no version specifier for {name[:40]}; write one like '>=2.4,<3'",
            field="requires.frameworks",
        ) from None


def unmet(requires: requirements_pb2.Requirements, runtime: router.Runtime) -> list[str]:
    """Returns the requirements that this runtime does not meet, in words; empty if it meets all."""
    missing = _unmet_accelerator(requires, runtime)
    if runtime.memory_bytes < requires.memory_bytes:
        missing.append(f"{requires.memory_bytes / _GIB:.1f} GiB of memory")
    if runtime.cpu_cores < requires.cpu_cores:
        missing.append(f"{requires.cpu_cores} CPU cores")
    for key, value in sorted(requires.labels.items()):
        if runtime.labels.get(key) != value:
            missing.append(f"label {key}={value}")
    for name, specifier in sorted(requires.frameworks.items()):
        if not _has_framework(runtime, name, specifier):
            missing.append(f"framework {name}{specifier}")
    return missing


def _unmet_accelerator(
    requires: requirements_pb2.Requirements, runtime: router.Runtime
) -> list[str]:
    if not (
        requires.accelerator_count or requires.accelerator_kind or requires.accelerator_memory_bytes
    ):
        return []
    count = max(1, requires.accelerator_count)
    suitable = [
        device
        for device in runtime.accelerators
        if requires.accelerator_kind in ("", device.kind)
        and device.memory_bytes >= requires.accelerator_memory_bytes
    ]
    if len(suitable) >= count:
        return []
    kind = f"{requires.accelerator_kind} " if requires.accelerator_kind else ""
    size = requires.accelerator_memory_bytes
    memory = f" with {size / _GIB:.1f} GiB" if size else ""
    return [f"{count} {kind}accelerator{'s' if count > 1 else ''}{memory}"]


def _has_framework(runtime: router.Runtime, name: str, specifier: str) -> bool:
    installed = runtime.frameworks.get(name)
    if installed is None:
        return False
    try:
        return Version(installed) in _specifiers(name, specifier)
    except InvalidVersion:
        return False
