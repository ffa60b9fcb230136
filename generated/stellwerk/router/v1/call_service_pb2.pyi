from stellwerk.job.v1 import work_pb2 as _work_pb2
from stellwerk.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExchangeRequest(_message.Message):
    __slots__ = ("credentials", "calls", "cancelled", "dropped_credentials", "groups")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[Credential]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    cancelled: _containers.RepeatedScalarFieldContainer[int]
    dropped_credentials: _containers.RepeatedScalarFieldContainer[int]
    groups: _containers.RepeatedCompositeFieldContainer[CallGroup]
    def __init__(self, credentials: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., cancelled: _Optional[_Iterable[int]] = ..., dropped_credentials: _Optional[_Iterable[int]] = ..., groups: _Optional[_Iterable[_Union[CallGroup, _Mapping]]] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("id", "token")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: int
    token: str
    def __init__(self, id: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "credential", "model", "version", "work", "timeout_ms", "request_id", "traceparent", "peer")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    id: int
    credential: int
    model: str
    version: str
    work: _work_pb2.WorkItem
    timeout_ms: int
    request_id: str
    traceparent: str
    peer: str
    def __init__(self, id: _Optional[int] = ..., credential: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., work: _Optional[_Union[_work_pb2.WorkItem, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., request_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., peer: _Optional[str] = ...) -> None: ...

class CallGroup(_message.Message):
    __slots__ = ("credential", "model", "version", "work", "ids", "timeouts_ms", "request_ids", "traceparents", "peers")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENTS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    credential: int
    model: str
    version: str
    work: _work_pb2.WorkItem
    ids: _containers.RepeatedScalarFieldContainer[int]
    timeouts_ms: _containers.RepeatedScalarFieldContainer[int]
    request_ids: _containers.RepeatedScalarFieldContainer[str]
    traceparents: _containers.RepeatedScalarFieldContainer[str]
    peers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, credential: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., work: _Optional[_Union[_work_pb2.WorkItem, _Mapping]] = ..., ids: _Optional[_Iterable[int]] = ..., timeouts_ms: _Optional[_Iterable[int]] = ..., request_ids: _Optional[_Iterable[str]] = ..., traceparents: _Optional[_Iterable[str]] = ..., peers: _Optional[_Iterable[str]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("answers", "groups")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    groups: _containers.RepeatedCompositeFieldContainer[AnswerGroup]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[AnswerGroup, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("id", "model_version", "reply")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    id: int
    model_version: str
    reply: _work_pb2.WorkReply
    def __init__(self, id: _Optional[int] = ..., model_version: _Optional[str] = ..., reply: _Optional[_Union[_work_pb2.WorkReply, _Mapping]] = ...) -> None: ...

class AnswerGroup(_message.Message):
    __slots__ = ("ids", "model_version", "reply")
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    model_version: str
    reply: _work_pb2.WorkReply
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., model_version: _Optional[str] = ..., reply: _Optional[_Union[_work_pb2.WorkReply, _Mapping]] = ...) -> None: ...
