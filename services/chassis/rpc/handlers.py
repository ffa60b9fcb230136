"""The handlers of a server before they are guarded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc


class Handlers:
    """Takes handlers as a server does, from the code that protoc writes, and keeps them for the
    guard.
    """

    def __init__(self) -> None:
        self.known: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds handlers; the first that knows a method serves it."""
        self.known.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: the same are among the generic ones, and grpc.aio waits anew for each registered
        method per call.
        """
