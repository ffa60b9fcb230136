from stellwerk.options.v1 import options_pb2 as _options_pb2
from stellwerk.router.v1 import router_service_pb2 as _router_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRuntimeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeRuntimeResponse(_message.Message):
    __slots__ = ("runtime",)
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    runtime: _router_service_pb2.Runtime
    def __init__(self, runtime: _Optional[_Union[_router_service_pb2.Runtime, _Mapping]] = ...) -> None: ...

class ListCachedModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCachedModelsResponse(_message.Message):
    __slots__ = ("models", "used_bytes", "capacity_bytes")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[CachedModel]
    used_bytes: int
    capacity_bytes: int
    def __init__(self, models: _Optional[_Iterable[_Union[CachedModel, _Mapping]]] = ..., used_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ...) -> None: ...

class CachedModel(_message.Message):
    __slots__ = ("model_version", "sha256", "memory_bytes", "in_use", "calls", "device")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    sha256: str
    memory_bytes: int
    in_use: int
    calls: int
    device: str
    def __init__(self, model_version: _Optional[str] = ..., sha256: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., in_use: _Optional[int] = ..., calls: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...
