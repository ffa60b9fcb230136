"""Reads the comments of the protos from the descriptor set generated beside the Python modules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

# The wheel carries the set beside this module; in a checkout it lies where protoc writes it.
_NAME = "stellwerk.binpb"
_INSTALLED = Path(__file__).with_name(_NAME)
_GENERATED = Path(__file__).parents[3] / "generated" / _NAME
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD_IN_MESSAGE, _NESTED_IN_MESSAGE, _ENUM_IN_MESSAGE, _VALUE_IN_ENUM, _METHOD_IN_SERVICE = (
    2,
    3,
    4,
    2,
    2,
)


@cache
def comments() -> Mapping[str, str]:
    """Returns each comment, as one paragraph, by the full name of the element it describes.

    Returns none where the descriptor set is not installed: the document then lacks descriptions.
    """
    path = _INSTALLED if _INSTALLED.is_file() else _GENERATED
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        for location in file.source_code_info.location:
            text = " ".join(location.leading_comments.split())
            if text and (name := _name_at(file, list(location.path))):
                found[name] = text
    return found


def _name_at(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str:
    """Returns the full name of the element at a path of numbers, "" for none with a name.

    google/protobuf/descriptor.proto describes the path under SourceCodeInfo.
    """
    kinds: dict[int, Any] = {
        _MESSAGE: file.message_type,
        _ENUM: file.enum_type,
        _SERVICE: file.service,
    }
    if len(path) < 2 or path[0] not in kinds:
        return ""
    element: Any = kinds[path[0]][path[1]]
    names = [file.package, element.name]
    for kind, index in zip(path[2::2], path[3::2], strict=False):
        inner = _inner(element, kind)
        if inner is None:
            return ""
        element = inner[index]
        names.append(element.name)
    return ".".join(names) if len(path) % 2 == 0 else ""


def _inner(element: Any, kind: int) -> Any:
    if isinstance(element, descriptor_pb2.DescriptorProto):
        by_kind: dict[int, Any] = {
            _FIELD_IN_MESSAGE: element.field,
            _NESTED_IN_MESSAGE: element.nested_type,
            _ENUM_IN_MESSAGE: element.enum_type,
        }
        return by_kind.get(kind)
    if isinstance(element, descriptor_pb2.EnumDescriptorProto):
        return element.value if kind == _VALUE_IN_ENUM else None
    if isinstance(element, descriptor_pb2.ServiceDescriptorProto):
        return element.method if kind == _METHOD_IN_SERVICE else None
    return None
