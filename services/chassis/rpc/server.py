"""The gRPC server of a process: collects services and their access rules, then serves both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.chassis.config import CannotListen, ServiceSettings
from services.chassis.rpc import transport
from services.chassis.rpc.guard import Guard
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, Rule, rules_of

# Makes the guard of these rules and handlers.
MakeGuard = Callable[[Mapping[str, Rule], Sequence[grpc.GenericRpcHandler]], Guard]


class RpcServer:
    """Serves gRPC on one port. Add everything before `start`."""

    def __init__(self) -> None:
        self._services: list[ServiceDescriptor] = []
        self._rules: dict[str, Rule] = {}
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._server: grpc.aio.Server | None = None
        self.port = 0

    def add(
        self, descriptor: ServiceDescriptor, add: Callable[[Any, Any], None], servicer: Any
    ) -> None:
        """Adds a service whose RPCs declare their access rules; `add` is protoc's function."""
        self._services.append(descriptor)
        add(servicer, self)

    def add_library(self, add: Callable[[Any, Any], None], servicer: Any) -> None:
        """Adds a service of a library, such as gRPC health; see `permissions.LIBRARY_RULES`."""
        add(servicer, self)

    def add_passing(self, handler: grpc.GenericRpcHandler, rules: Mapping[str, Rule]) -> None:
        """Adds RPCs that are passed on as bytes.

        They are authenticated here, and authorised and audited by the service behind.
        """
        for method, rule in rules.items():
            permission = ANONYMOUS if rule.permission == ANONYMOUS else AUTHENTICATED
            self._rules[method] = replace(rule, permission=permission, resource="", changes=False)
        self._handlers.append(handler)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds handlers; protoc's code calls this as the method of a server."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Ignores the handlers: the same are among the generic ones.

        grpc.aio would wait anew for each registered method with each call.
        """

    async def start(
        self, settings: ServiceSettings, make_guard: MakeGuard, *, ask_client: bool
    ) -> None:
        """Serves on the address of the settings; `port` is the port it took.

        With `ask_client` and mutual TLS, callers must show a certificate. Raises CannotListen if
        the address cannot be bound.
        """
        rules = {**rules_of(self._services), **self._rules}
        self._server = grpc.aio.server(
            handlers=[make_guard(rules, self._handlers)],
            options=transport.server_options(settings.max_message_bytes),
        )
        credentials = transport.server_credentials(settings, ask_client=ask_client)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(settings.listen)
            else:
                self.port = self._server.add_secure_port(settings.listen, credentials)
        except RuntimeError:
            reason = "is it in use?" if credentials is None else "is it in use, and TLS usable?"
            raise CannotListen(
                f"STELLWERK_LISTEN: {settings.listen} cannot be bound; {reason}"
            ) from None
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no further calls; cancels those that have not ended after `grace_seconds`."""
        if self._server is not None:
            await self._server.stop(grace_seconds)
