"""Names the parts of AMQP 0-9-1 that every message costs. Pure data; `incoming` reads what they
describe and `outgoing` writes it.
"""

from __future__ import annotations

from struct import Struct

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
BASIC = 60
PUBLISH, DELIVER, ACK, NACK = ((BASIC << 16) | method for method in (40, 60, 80, 120))
# Flags of a content header: the properties that follow, in the order in which they follow.
HEADERS, DELIVERY_MODE, CORRELATION_ID, REPLY_TO = 1 << 13, 1 << 12, 1 << 10, 1 << 9
EXPIRATION, MESSAGE_ID, APP_ID = 1 << 8, 1 << 7, 1 << 3
END = b"\xce"
# A frame is its kind, channel and payload size, the payload, and the end mark.
FRAME = Struct(">BHI")
OVERHEAD = FRAME.size + len(END)
METHOD_ID = Struct(">I")
# A content header: class and weight, the body's size, the flags.
CONTENT = Struct(">IQH")
LONG = Struct(">I")
