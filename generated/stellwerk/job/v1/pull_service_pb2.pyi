from stellwerk.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BrokerMessage(_message.Message):
    __slots__ = ("body", "headers", "reply_to", "correlation_id", "expiration_ms", "message_id")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_MS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    headers: _containers.ScalarMap[str, str]
    reply_to: str
    correlation_id: str
    expiration_ms: int
    message_id: str
    def __init__(self, body: _Optional[bytes] = ..., headers: _Optional[_Mapping[str, str]] = ..., reply_to: _Optional[str] = ..., correlation_id: _Optional[str] = ..., expiration_ms: _Optional[int] = ..., message_id: _Optional[str] = ...) -> None: ...

class QueueDeclaration(_message.Message):
    __slots__ = ("name", "max_length", "expires_ms", "exclusive")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_length: int
    expires_ms: int
    exclusive: bool
    def __init__(self, name: _Optional[str] = ..., max_length: _Optional[int] = ..., expires_ms: _Optional[int] = ..., exclusive: _Optional[bool] = ...) -> None: ...

class Publish(_message.Message):
    __slots__ = ("routing_key", "topic", "message", "mandatory")
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MANDATORY_FIELD_NUMBER: _ClassVar[int]
    routing_key: str
    topic: bool
    message: BrokerMessage
    mandatory: bool
    def __init__(self, routing_key: _Optional[str] = ..., topic: _Optional[bool] = ..., message: _Optional[_Union[BrokerMessage, _Mapping]] = ..., mandatory: _Optional[bool] = ...) -> None: ...

class Consume(_message.Message):
    __slots__ = ("queue", "topic", "prefetch", "settled")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    queue: str
    topic: bool
    prefetch: int
    settled: bool
    def __init__(self, queue: _Optional[str] = ..., topic: _Optional[bool] = ..., prefetch: _Optional[int] = ..., settled: _Optional[bool] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ("tag", "ack")
    TAG_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    tag: int
    ack: bool
    def __init__(self, tag: _Optional[int] = ..., ack: _Optional[bool] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("sequence", "declare", "publish", "consume", "cancel", "settle", "inspect", "batch")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    CONSUME_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    INSPECT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    declare: QueueDeclaration
    publish: Publish
    consume: Consume
    cancel: int
    settle: Settle
    inspect: str
    batch: _containers.RepeatedCompositeFieldContainer[ExchangeRequest]
    def __init__(self, sequence: _Optional[int] = ..., declare: _Optional[_Union[QueueDeclaration, _Mapping]] = ..., publish: _Optional[_Union[Publish, _Mapping]] = ..., consume: _Optional[_Union[Consume, _Mapping]] = ..., cancel: _Optional[int] = ..., settle: _Optional[_Union[Settle, _Mapping]] = ..., inspect: _Optional[str] = ..., batch: _Optional[_Iterable[_Union[ExchangeRequest, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("result", "messages", "consumers")
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RESULT_UNSPECIFIED: _ClassVar[Outcome.Result]
        RESULT_OK: _ClassVar[Outcome.Result]
        RESULT_UNROUTABLE: _ClassVar[Outcome.Result]
        RESULT_FULL: _ClassVar[Outcome.Result]
        RESULT_NO_QUEUE: _ClassVar[Outcome.Result]
        RESULT_MISMATCH: _ClassVar[Outcome.Result]
    RESULT_UNSPECIFIED: Outcome.Result
    RESULT_OK: Outcome.Result
    RESULT_UNROUTABLE: Outcome.Result
    RESULT_FULL: Outcome.Result
    RESULT_NO_QUEUE: Outcome.Result
    RESULT_MISMATCH: Outcome.Result
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    result: Outcome.Result
    messages: int
    consumers: int
    def __init__(self, result: _Optional[_Union[Outcome.Result, str]] = ..., messages: _Optional[int] = ..., consumers: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("consumer", "tag", "redelivered", "message", "routing_key")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    tag: int
    redelivered: bool
    message: BrokerMessage
    routing_key: str
    def __init__(self, consumer: _Optional[int] = ..., tag: _Optional[int] = ..., redelivered: _Optional[bool] = ..., message: _Optional[_Union[BrokerMessage, _Mapping]] = ..., routing_key: _Optional[str] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("sequence", "outcome", "delivery", "batch")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    outcome: Outcome
    delivery: Delivery
    batch: _containers.RepeatedCompositeFieldContainer[ExchangeResponse]
    def __init__(self, sequence: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., batch: _Optional[_Iterable[_Union[ExchangeResponse, _Mapping]]] = ...) -> None: ...
