from google.api import annotations_pb2 as _annotations_pb2
from stellwerk.options.v1 import options_pb2 as _options_pb2
from stellwerk.router.v1 import router_service_pb2 as _router_service_pb2
from stellwerk.status.v1 import status_service_pb2 as _status_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("ready", "reasons", "services", "runtimes", "queues", "broker")
    READY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    services: _containers.RepeatedCompositeFieldContainer[_status_service_pb2.ServiceStatus]
    runtimes: _containers.RepeatedCompositeFieldContainer[_router_service_pb2.Runtime]
    queues: _containers.RepeatedCompositeFieldContainer[_router_service_pb2.Queue]
    broker: str
    def __init__(self, ready: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., services: _Optional[_Iterable[_Union[_status_service_pb2.ServiceStatus, _Mapping]]] = ..., runtimes: _Optional[_Iterable[_Union[_router_service_pb2.Runtime, _Mapping]]] = ..., queues: _Optional[_Iterable[_Union[_router_service_pb2.Queue, _Mapping]]] = ..., broker: _Optional[str] = ...) -> None: ...
