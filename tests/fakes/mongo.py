"""A MongoDB that only says hello: enough for who asks whether one is there.

It takes any user and password by the mechanism PLAIN, calls itself the primary of rs0, and knows
no other command.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while header := self._read(16):
            length, request, _, opcode = struct.unpack("<iiii", header)
            body = self._read(length - 16)
            if opcode == _OP_QUERY:
                name_end = body.index(b"\x00", 4)
                command = bson.decode(body[name_end + 9 :])
                answer = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._answer(command))
                self._send(_OP_REPLY, request, answer)
            else:
                answer = b"\x00\x00\x00\x00\x00" + bson.encode(self._answer(bson.decode(body[5:])))
                self._send(_OP_MSG, request, answer)

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command)).lower()
        if name in ("hello", "ismaster"):
            return self.server.hello  # type: ignore[attr-defined, no-any-return]
        if name == "saslstart":
            return {"ok": 1, "conversationId": 1, "done": True, "payload": b""}
        return {"ok": 1}

    def _send(self, opcode: int, request: int, body: bytes) -> None:
        header = struct.pack("<iiii", 16 + len(body), 1, request, opcode)
        self.request.sendall(header + body)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.request.recv(count - len(data))
            if not piece:
                return b""
            data += piece
        return data


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def mongo(*, replica_set: bool = True) -> Iterator[str]:
    """Serves until left; gives the URL, with a password in it."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        place = f"127.0.0.1:{server.server_address[1]}"
        hello = {"ok": 1, "isWritablePrimary": True, "maxWireVersion": 21, "minWireVersion": 0}
        if replica_set:
            hello |= {"setName": "rs0", "hosts": [place], "primary": place, "me": place}
        server.hello = hello  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"mongodb://user:secret@{place}/?authMechanism=PLAIN"
        server.shutdown()
