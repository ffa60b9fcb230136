from stellwerk.options.v1 import options_pb2 as _options_pb2
from stellwerk.router.v1 import router_service_pb2 as _router_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("advertisement", "report")
    ADVERTISEMENT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    advertisement: _router_service_pb2.Runtime
    report: Report
    def __init__(self, advertisement: _Optional[_Union[_router_service_pb2.Runtime, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("models", "in_flight", "draining")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_router_service_pb2.ServedModel]
    in_flight: int
    draining: bool
    def __init__(self, models: _Optional[_Iterable[_Union[_router_service_pb2.ServedModel, _Mapping]]] = ..., in_flight: _Optional[int] = ..., draining: _Optional[bool] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("welcome", "serve", "stop_serving")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SERVE_FIELD_NUMBER: _ClassVar[int]
    STOP_SERVING_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    serve: Serve
    stop_serving: StopServing
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., serve: _Optional[_Union[Serve, _Mapping]] = ..., stop_serving: _Optional[_Union[StopServing, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("router_instance",)
    ROUTER_INSTANCE_FIELD_NUMBER: _ClassVar[int]
    router_instance: str
    def __init__(self, router_instance: _Optional[str] = ...) -> None: ...

class Serve(_message.Message):
    __slots__ = ("key", "model_version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    key: str
    model_version: str
    def __init__(self, key: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class StopServing(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...
