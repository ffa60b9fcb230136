from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_UNSPECIFIED: _ClassVar[Effect]
    EFFECT_READ: _ClassVar[Effect]
    EFFECT_CHANGE: _ClassVar[Effect]
    EFFECT_INTERNAL: _ClassVar[Effect]
EFFECT_UNSPECIFIED: Effect
EFFECT_READ: Effect
EFFECT_CHANGE: Effect
EFFECT_INTERNAL: Effect
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor

class Access(_message.Message):
    __slots__ = ("permission", "resource", "effect")
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    permission: str
    resource: str
    effect: Effect
    def __init__(self, permission: _Optional[str] = ..., resource: _Optional[str] = ..., effect: _Optional[_Union[Effect, str]] = ...) -> None: ...
