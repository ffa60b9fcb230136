import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from stellwerk.options.v1 import options_pb2 as _options_pb2
from stellwerk.type.v1 import requirements_pb2 as _requirements_pb2
from stellwerk.type.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("name", "method", "inputs", "instances", "output_names", "requires")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NAMES_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    name: str
    method: str
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    instances: _struct_pb2.ListValue
    output_names: _containers.RepeatedScalarFieldContainer[str]
    requires: _requirements_pb2.Requirements
    def __init__(self, name: _Optional[str] = ..., method: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., instances: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., output_names: _Optional[_Iterable[str]] = ..., requires: _Optional[_Union[_requirements_pb2.Requirements, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("model_version", "outputs", "predictions", "runtime")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    predictions: _struct_pb2.ListValue
    runtime: str
    def __init__(self, model_version: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., predictions: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., runtime: _Optional[str] = ...) -> None: ...

class Accelerator(_message.Message):
    __slots__ = ("kind", "name", "memory_bytes", "compute_capability")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    memory_bytes: int
    compute_capability: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., compute_capability: _Optional[str] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("key", "model_version", "state", "memory_bytes", "error_reason", "error", "error_code")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ServedModel.State]
        STATE_LOADING: _ClassVar[ServedModel.State]
        STATE_READY: _ClassVar[ServedModel.State]
        STATE_FAILED: _ClassVar[ServedModel.State]
    STATE_UNSPECIFIED: ServedModel.State
    STATE_LOADING: ServedModel.State
    STATE_READY: ServedModel.State
    STATE_FAILED: ServedModel.State
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    key: str
    model_version: str
    state: ServedModel.State
    memory_bytes: int
    error_reason: str
    error: str
    error_code: int
    def __init__(self, key: _Optional[str] = ..., model_version: _Optional[str] = ..., state: _Optional[_Union[ServedModel.State, str]] = ..., memory_bytes: _Optional[int] = ..., error_reason: _Optional[str] = ..., error: _Optional[str] = ..., error_code: _Optional[int] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("name", "instance", "cpu_cores", "memory_bytes", "accelerators", "frameworks", "labels", "formats", "slots", "models", "in_flight", "draining", "stale", "attach_time")
    class FrameworksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORKS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    ATTACH_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    instance: str
    cpu_cores: int
    memory_bytes: int
    accelerators: _containers.RepeatedCompositeFieldContainer[Accelerator]
    frameworks: _containers.ScalarMap[str, str]
    labels: _containers.ScalarMap[str, str]
    formats: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    in_flight: int
    draining: bool
    stale: bool
    attach_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., instance: _Optional[str] = ..., cpu_cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., accelerators: _Optional[_Iterable[_Union[Accelerator, _Mapping]]] = ..., frameworks: _Optional[_Mapping[str, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., formats: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ..., in_flight: _Optional[int] = ..., draining: _Optional[bool] = ..., stale: _Optional[bool] = ..., attach_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListRuntimesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRuntimesResponse(_message.Message):
    __slots__ = ("runtimes",)
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    runtimes: _containers.RepeatedCompositeFieldContainer[Runtime]
    def __init__(self, runtimes: _Optional[_Iterable[_Union[Runtime, _Mapping]]] = ...) -> None: ...

class GetRuntimeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetRuntimeResponse(_message.Message):
    __slots__ = ("runtime",)
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    runtime: Runtime
    def __init__(self, runtime: _Optional[_Union[Runtime, _Mapping]] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("name", "model_version", "messages", "consumers", "pending")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    name: str
    model_version: str
    messages: int
    consumers: int
    pending: int
    def __init__(self, name: _Optional[str] = ..., model_version: _Optional[str] = ..., messages: _Optional[int] = ..., consumers: _Optional[int] = ..., pending: _Optional[int] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues", "broker")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    broker: str
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ..., broker: _Optional[str] = ...) -> None: ...
