from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Requirements(_message.Message):
    __slots__ = ("accelerator_count", "accelerator_kind", "accelerator_memory_bytes", "memory_bytes", "cpu_cores", "labels", "frameworks")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class FrameworksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ACCELERATOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_KIND_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORKS_FIELD_NUMBER: _ClassVar[int]
    accelerator_count: int
    accelerator_kind: str
    accelerator_memory_bytes: int
    memory_bytes: int
    cpu_cores: int
    labels: _containers.ScalarMap[str, str]
    frameworks: _containers.ScalarMap[str, str]
    def __init__(self, accelerator_count: _Optional[int] = ..., accelerator_kind: _Optional[str] = ..., accelerator_memory_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cpu_cores: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., frameworks: _Optional[_Mapping[str, str]] = ...) -> None: ...
