from stellwerk.type.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkItem(_message.Message):
    __slots__ = ("id", "method", "inputs", "outputs", "timeout_ms", "context", "priority", "stream")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    id: str
    method: str
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    timeout_ms: int
    context: _containers.ScalarMap[str, str]
    priority: int
    stream: bool
    def __init__(self, id: _Optional[str] = ..., method: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., outputs: _Optional[_Iterable[str]] = ..., timeout_ms: _Optional[int] = ..., context: _Optional[_Mapping[str, str]] = ..., priority: _Optional[int] = ..., stream: _Optional[bool] = ...) -> None: ...

class WorkGroup(_message.Message):
    __slots__ = ("id", "form", "timeouts_ms", "request_ids", "traceparents")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    form: WorkItem
    timeouts_ms: _containers.RepeatedScalarFieldContainer[int]
    request_ids: _containers.RepeatedScalarFieldContainer[str]
    traceparents: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., form: _Optional[_Union[WorkItem, _Mapping]] = ..., timeouts_ms: _Optional[_Iterable[int]] = ..., request_ids: _Optional[_Iterable[str]] = ..., traceparents: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkEnvelope(_message.Message):
    __slots__ = ("key", "items", "groups")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    key: str
    items: _containers.RepeatedCompositeFieldContainer[WorkItem]
    groups: _containers.RepeatedCompositeFieldContainer[WorkGroup]
    def __init__(self, key: _Optional[str] = ..., items: _Optional[_Iterable[_Union[WorkItem, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[WorkGroup, _Mapping]]] = ...) -> None: ...

class WorkError(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata", "retry_after_ms")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class WorkReply(_message.Message):
    __slots__ = ("id", "outputs", "error", "runtime", "queue_ns", "compute_ns", "more", "input_ns", "output_ns", "rows", "batch_rows", "leads", "cached")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    INPUT_NS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    id: str
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    error: WorkError
    runtime: str
    queue_ns: int
    compute_ns: int
    more: bool
    input_ns: int
    output_ns: int
    rows: int
    batch_rows: int
    leads: bool
    cached: bool
    def __init__(self, id: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., error: _Optional[_Union[WorkError, _Mapping]] = ..., runtime: _Optional[str] = ..., queue_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ..., more: _Optional[bool] = ..., input_ns: _Optional[int] = ..., output_ns: _Optional[int] = ..., rows: _Optional[int] = ..., batch_rows: _Optional[int] = ..., leads: _Optional[bool] = ..., cached: _Optional[bool] = ...) -> None: ...

class GroupMembers(_message.Message):
    __slots__ = ("id", "members")
    ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    id: str
    members: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[str] = ..., members: _Optional[_Iterable[int]] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("ids", "groups")
    IDS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedCompositeFieldContainer[GroupMembers]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., groups: _Optional[_Iterable[_Union[GroupMembers, _Mapping]]] = ...) -> None: ...

class WorkReplyGroup(_message.Message):
    __slots__ = ("id", "members", "reply")
    ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    id: str
    members: _containers.RepeatedScalarFieldContainer[int]
    reply: WorkReply
    def __init__(self, id: _Optional[str] = ..., members: _Optional[_Iterable[int]] = ..., reply: _Optional[_Union[WorkReply, _Mapping]] = ...) -> None: ...

class WorkReplyEnvelope(_message.Message):
    __slots__ = ("replies", "groups")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[WorkReply]
    groups: _containers.RepeatedCompositeFieldContainer[WorkReplyGroup]
    def __init__(self, replies: _Optional[_Iterable[_Union[WorkReply, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[WorkReplyGroup, _Mapping]]] = ...) -> None: ...
