"""One process: what it has, in which order it starts, and how it ends.

NOT_SERVING → server, resources, background work → SERVING → … → NOT_SERVING → drain what is in hand
while connections live → stop the server → close everything in reverse order of opening.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from services.chassis import logs, telemetry
from services.chassis.access import service_identity as identity
from services.chassis.access.audit import AuditSink, Journal, RemoteLedger
from services.chassis.access.token_verifier import TokenVerifier
from services.chassis.broker.connect import open_broker
from services.chassis.broker.port import Broker
from services.chassis.config import ConfigError, ServiceSettings
from services.chassis.lifecycle.readiness import Readiness, StatusServicer
from services.chassis.release import platform_version
from services.chassis.rpc import transport
from services.chassis.rpc.call_log import CallLog
from services.chassis.rpc.channel import ServiceChannel
from services.chassis.rpc.guard import Exchange, Guard, Surroundings
from services.chassis.rpc.handlers import Handlers
from stellwerk.status.v1 import status_service_pb2, status_service_pb2_grpc
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.permissions import ANONYMOUS, AUTHENTICATED, Rule, rules_of

Hook = Callable[[], Awaitable[None]]
_LONGEST_RESTART = 5.0


class Process:
    """What a composition root puts its service together with."""

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        *,
        ledger: AuditSink | None = None,
        token: Callable[[], Awaitable[tuple[str, float]]] | None = None,
        public: bool = False,
    ) -> None:
        """The control plane brings its own ledger and token source; all others reach it over gRPC.

        A public process asks its callers for no certificate even when mutual TLS is on between
        services.
        """
        self._public = public
        self.service, self.settings = service, settings
        self.instance = settings.instance or f"{service}-{secrets.token_hex(4)}"
        self.log_levels = logs.Levels(settings.log_level)
        self.log = logs.configure(
            service, self.instance, levels=self.log_levels, style=settings.log_format
        )
        self.metrics = CollectorRegistry()
        self.tracing = telemetry.Tracing(service, self.instance, settings.otel_endpoint)
        self.verifier = TokenVerifier()
        self.readiness = Readiness(service, self.instance, platform_version(), self.log)
        self.bound_port = 0
        self.metrics_port = 0
        self._services: list[ServiceDescriptor] = [_descriptor("StatusService")]
        self._rules: dict[str, Rule] = {}
        self._bindings: list[Callable[[Any], None]] = []
        self._resources: list[tuple[str, Hook | None, Hook | None]] = []
        self._drains: list[Hook] = []
        self._work: list[tuple[str, Hook]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[Any] = []
        self._metrics_server: Any = None
        self._stopping = asyncio.Event()
        # Set once everything is started and the server answers.
        self.started = asyncio.Event()
        self._is_issuer = token is not None
        self.identity = identity.ServiceIdentity(token or self._exchange_service_key())
        self.ledger: AuditSink = ledger or RemoteLedger(
            self.channel("controlplane", settings.controlplane)
        )
        self._journal = Journal(self.ledger, self.log)
        self._surroundings = Surroundings(
            verifier=self.verifier,
            ledger=self.ledger,
            journal=self._journal,
            calls=CallLog(telemetry.CallMetrics(self.metrics), self.log),
            tracing=self.tracing,
            log=self.log,
            max_deadline_seconds=settings.max_deadline_seconds,
        )

    def _exchange_service_key(self) -> Callable[[], Awaitable[tuple[str, float]]]:
        if self.settings.service_key is None:
            raise ConfigError(
                "STELLWERK_SERVICE_KEY: missing; give the service's key or"
                " STELLWERK_SERVICE_KEY_FILE"
            )
        key = self.settings.service_key.get_secret_value()
        return identity.from_service_key(self._bare_channel(self.settings.controlplane), key)

    def _bare_channel(self, address: str) -> grpc.aio.Channel:
        channel = transport.open_channel(self.settings, address)
        self._channels.append(channel)
        return channel

    def channel(self, name: str, address: str) -> Any:
        """A channel to a peer for generated stubs; see `clients`. `name` is how errors call the
        peer.
        """
        return ServiceChannel(self._bare_channel(address), name, self.identity.token)

    def raw_channel(self, address: str) -> grpc.aio.Channel:
        """A bare channel that adds nothing, for passing calls through under the caller's own
        token.
        """
        return self._bare_channel(address)

    def resource(self, name: str, start: Hook | None, stop: Hook | None) -> None:
        """Something to start, in order of registration, and to stop, in reverse."""
        self._resources.append((name, start, stop))

    def background(self, name: str, work: Hook) -> None:
        """Work that goes on for ever; restarted with backoff when it fails, cancelled at the
        end.
        """
        self._work.append((name, work))

    def depends_on(self, name: str, problem: Callable[[], str]) -> None:
        """Readiness waits for this; see `readiness`."""
        self.readiness.depends_on(name, problem)

    def on_drain(self, drain: Hook) -> None:
        """Called after NOT_SERVING and before the server stops, within the drain limit."""
        self._drains.append(drain)

    def serve(
        self, descriptor: ServiceDescriptor, add: Callable[[Any, Any], None], servicer: Any
    ) -> None:
        """Serves a service of our own."""
        self._services.append(descriptor)
        self._bindings.append(lambda server: add(servicer, server))

    def serve_passing(self, handler: grpc.GenericRpcHandler, rules: Mapping[str, Rule]) -> None:
        """Serves RPCs that are passed on as bytes: authenticated here, authorised and audited by
        who serves them.
        """
        for method, rule in rules.items():
            permission = ANONYMOUS if rule.permission == ANONYMOUS else AUTHENTICATED
            self._rules[method] = replace(rule, permission=permission, resource="", changes=False)
        self._bindings.append(lambda server: server.add_generic_rpc_handlers((handler,)))

    @property
    def journal(self) -> Journal:
        """Where refusals are noted that happen before a call reaches the guard, such as at an HTTP
        door.
        """
        return self._journal

    @property
    def call_metrics(self) -> telemetry.CallMetrics:
        """Counts and times of calls by method, for those that do not come as an RPC each."""
        return self._surroundings.calls.metrics

    def exchange_credentials(self, exchange: Exchange) -> None:
        """Lets callers present something that `exchange` turns into a token; tokens pass through it
        unchanged.
        """
        self._surroundings.exchange = exchange

    def open_broker(self, *, hub: Any = None) -> Broker:
        """The broker that the settings name, started and closed with the process, and a dependency
        of readiness.
        """
        url = self.settings.broker.get_secret_value()
        channel = (
            self.channel("router", self.settings.router) if url == "pull" and hub is None else None
        )
        broker: Broker = open_broker(url, channel=channel, hub=hub, name=self.instance)
        self.resource("broker", broker.start, broker.close)
        self.depends_on("broker", lambda: broker.problem)
        return broker

    def stop(self) -> None:
        """Asks the process to drain and end."""
        self._stopping.set()

    async def run(self) -> None:
        """Starts everything, serves until asked to stop, then ends in order."""
        server = await self._start_server()
        if self.settings.metrics_listen:
            self._metrics_server, self.metrics_port = telemetry.serve_metrics(
                self.metrics, self.settings.metrics_listen
            )
        self._start_trust()
        started: list[tuple[str, Hook | None]] = []
        try:
            for name, start, stop in self._resources:
                if start is not None:
                    await start()
                started.append((name, stop))
            for name, work in [
                *self._work,
                ("readiness", self.readiness.run),
                ("audit", self._journal.run),
            ]:
                self._tasks.append(asyncio.create_task(self._keep_running(name, work), name=name))
            await self.readiness.enter("")
            self.log.info(
                "started",
                port=self.bound_port,
                metrics_port=self.metrics_port,
                version=platform_version(),
            )
            self.started.set()
            await self._stopping.wait()
        finally:
            await self._end(server, started)

    def _start_trust(self) -> None:
        self.depends_on("identity", lambda: self.identity.problem)
        self._work.append(("identity", self.identity.run))
        if not self._is_issuer:
            poller = identity.TrustPoller(
                self._bare_channel(self.settings.controlplane), self.verifier
            )
            self.depends_on("trust", lambda: poller.problem)
            self._work.append(("trust", poller.run))

    async def _start_server(self) -> grpc.aio.Server:
        rules = {**rules_of(self._services), **self._rules}
        handlers = Handlers()
        health_pb2_grpc.add_HealthServicer_to_server(self.readiness.health, handlers)
        status_service_pb2_grpc.add_StatusServiceServicer_to_server(
            StatusServicer(self.readiness), handlers
        )
        for bind in self._bindings:
            bind(handlers)
        server = grpc.aio.server(
            handlers=[Guard(rules, self._surroundings, handlers)],
            options=transport.server_options(self.settings.max_message_bytes),
        )
        credentials = transport.server_credentials(self.settings, ask_client=not self._public)
        try:
            if credentials is None:
                self.bound_port = server.add_insecure_port(self.settings.listen)
            else:
                self.bound_port = server.add_secure_port(self.settings.listen, credentials)
        except RuntimeError:
            raise ConfigError(
                f"STELLWERK_LISTEN: {self.settings.listen} cannot be bound; is it in use?"
            ) from None
        await self.readiness.enter("the process is starting")
        await server.start()
        return server

    async def _keep_running(self, name: str, work: Hook) -> None:
        delay = 0.1
        while True:
            try:
                await work()
                return
            except asyncio.CancelledError:
                raise
            except ServiceError as exc:
                self.log.warning(
                    "background_work_waits", work=name, reason=exc.reason, retry_in_seconds=delay
                )
            except Exception:
                self.log.exception("background_work_failed", work=name, retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RESTART)

    async def _end(self, server: grpc.aio.Server, started: list[tuple[str, Hook | None]]) -> None:
        await self.readiness.enter("the process is stopping")
        limit = self.settings.drain_seconds
        try:
            await asyncio.wait_for(
                asyncio.gather(*(drain() for drain in self._drains)), limit or 0.001
            )
        except TimeoutError:
            self.log.warning("drain_limit_reached", seconds=limit)
        await server.stop(min(limit, 5.0))
        self._surroundings.calls.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._quietly("audit", self._journal.flush)
        for name, stop in reversed(started):
            if stop is not None:
                await self._quietly(name, stop)
        for channel in self._channels:
            await channel.close()
        self.tracing.close()
        if self._metrics_server is not None:
            self._metrics_server.shutdown()
        self.log.info("stopped")

    async def _quietly(self, name: str, stop: Hook) -> None:
        try:
            await asyncio.wait_for(stop(), 5.0)
        except Exception as exc:
            self.log.warning("stop_failed", resource=name, error=type(exc).__name__)


def _descriptor(name: str) -> ServiceDescriptor:
    return status_service_pb2.DESCRIPTOR.services_by_name[name]
