"""One process: its parts, the order in which they start, and how they end.

Start: NOT_SERVING → server → resources → background work → SERVING.

End: NOT_SERVING → drain the work under way, while connections live → stop the server → close
everything in reverse order of opening.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc

from services.chassis import background, logs, telemetry
from services.chassis.access import service_identity
from services.chassis.access.audit import AuditSink, AuditTrail, RemoteAuditSink
from services.chassis.access.service_identity import FetchToken
from services.chassis.access.token_verifier import Authenticator, Exchange, TokenVerifier
from services.chassis.broker.connect import open_broker
from services.chassis.broker.port import Broker
from services.chassis.config import ConfigError, ServiceSettings
from services.chassis.lifecycle.readiness import Readiness, StatusServicer
from services.chassis.release import platform_version
from services.chassis.rpc import transport
from services.chassis.rpc.channel import ServiceChannel
from services.chassis.rpc.guard import Guard
from services.chassis.rpc.rpc_log import RpcLog
from services.chassis.rpc.server import RpcServer
from stellwerk.status.v1 import status_service_pb2, status_service_pb2_grpc
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.permissions import Rule

Hook = Callable[[], Awaitable[None]]
# Seconds after which background work that failed is begun again, at most.
_LONGEST_RESTART = 5.0
# Seconds that calls get to end when the server stops, and each resource to close.
_STOP_SECONDS = 5.0


class Process:
    """The parts of a service's process, which its composition root puts together."""

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        *,
        audit_sink: AuditSink | None = None,
        token: FetchToken | None = None,
        public: bool = False,
    ) -> None:
        """Prepares a process; nothing starts before `run`.

        The control plane brings its own audit sink and token source; all others reach it over gRPC.
        A public process asks its callers for no certificate even if mutual TLS is on.
        """
        self.service = service
        self.settings = settings
        self.instance = settings.instance or f"{service}-{secrets.token_hex(4)}"
        self.log_levels = logs.LogLevels(settings.log_level)
        self.log = logs.configure(
            service, self.instance, levels=self.log_levels, style=settings.log_format
        )
        self.tracing = telemetry.Tracing(service, self.instance, settings.otel_endpoint)
        self.verifier = TokenVerifier()
        self.readiness = Readiness(service, self.instance, platform_version(), self.log)
        self.metrics = telemetry.new_registry(
            service, platform_version(), lambda: self.readiness.is_ready
        )
        self.metrics_port = 0
        # Set once everything is started and the server answers.
        self.started = asyncio.Event()
        self._public = public
        self._exchange: Exchange | None = None
        self._server = RpcServer()
        self._server.add_library(
            health_pb2_grpc.add_HealthServicer_to_server, self.readiness.health
        )
        self.serve(*_status_service(self.readiness))
        self._resources: list[tuple[str, Hook | None, Hook | None]] = []
        self._drains: list[Hook] = []
        self._work: list[tuple[str, Hook]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []
        self._metrics_server: Any = None
        self._stopping = asyncio.Event()
        self._is_issuer = token is not None
        self.identity = service_identity.ServiceIdentity(token or self._token_source())
        self.audit_trail = AuditTrail(
            audit_sink or RemoteAuditSink(self.channel("controlplane", settings.controlplane)),
            self.log,
        )
        self._calls = RpcLog(telemetry.CallMetrics(self.metrics), self.log)

    def _token_source(self) -> FetchToken:
        if self.settings.service_key is None:
            raise ConfigError(
                "STELLWERK_SERVICE_KEY: missing; give the service's key or"
                " STELLWERK_SERVICE_KEY_FILE"
            )
        key = self.settings.service_key.get_secret_value()
        channel = self.raw_channel(self.settings.controlplane)
        return service_identity.from_service_key(channel, key)

    @property
    def bound_port(self) -> int:
        """The port of the gRPC server, 0 before it has started."""
        return self._server.port

    @property
    def call_metrics(self) -> telemetry.CallMetrics:
        """Counts and durations by method, for calls that arrive within another call."""
        return self._calls.metrics

    def channel(self, name: str, address: str) -> Any:
        """Returns a channel to a peer for generated stubs; errors call the peer `name`."""
        return ServiceChannel(self.raw_channel(address), name, self.identity.token)

    def raw_channel(self, address: str) -> grpc.aio.Channel:
        """Returns a channel that adds nothing, for calls passed on under their caller's token."""
        channel = transport.open_channel(self.settings, address)
        self._channels.append(channel)
        return channel

    def resource(self, name: str, start: Hook | None, stop: Hook | None) -> None:
        """Adds something to start, in order of registration, and to stop, in reverse."""
        self._resources.append((name, start, stop))

    def background(self, name: str, work: Hook) -> None:
        """Adds work that goes on for ever: begun again when it fails, cancelled at the end."""
        self._work.append((name, work))

    def depends_on(self, name: str, problem: Callable[[], str]) -> None:
        """Makes readiness depend on something; see `Readiness.depends_on`."""
        self.readiness.depends_on(name, problem)

    def on_drain(self, drain: Hook) -> None:
        """Adds a hook that runs after NOT_SERVING and before the server stops.

        All hooks together get `drain_seconds`.
        """
        self._drains.append(drain)

    def serve(
        self, descriptor: ServiceDescriptor, add: Callable[[Any, Any], None], servicer: Any
    ) -> None:
        """Serves a service of the platform; see `RpcServer.add`."""
        self._server.add(descriptor, add, servicer)

    def serve_passing(self, handler: grpc.GenericRpcHandler, rules: Mapping[str, Rule]) -> None:
        """Serves RPCs that are passed on; see `RpcServer.add_passing`."""
        self._server.add_passing(handler, rules)

    def exchange_credentials(self, exchange: Exchange) -> None:
        """Lets callers present API keys, which `exchange` turns into tokens."""
        self._exchange = exchange

    def open_broker(self, *, hub: Any = None) -> Broker:
        """Returns the broker that the settings name; readiness depends on it.

        It starts and closes with the process. `hub` is that of a process which hosts it.
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
        await self.readiness.enter("the process is starting")
        make_guard = partial(
            Guard,
            authenticator=Authenticator(self.verifier, self._exchange),
            audit=self.audit_trail,
            calls=self._calls,
            tracing=self.tracing,
            longest_seconds=self.settings.max_deadline_seconds,
        )
        await self._server.start(self.settings, make_guard, ask_client=not self._public)
        if self.settings.metrics_listen:
            self._metrics_server, self.metrics_port = telemetry.serve_metrics(
                self.metrics, self.settings.metrics_listen
            )
        started: list[tuple[str, Hook | None]] = []
        try:
            for name, start, stop in self._resources:
                if start is not None:
                    await start()
                started.append((name, stop))
            self._start_work()
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
            await self._end(started)

    def _start_work(self) -> None:
        self.depends_on("identity", lambda: self.identity.problem)
        self.background("identity", self.identity.run)
        if not self._is_issuer:
            channel = self.raw_channel(self.settings.controlplane)
            poller = service_identity.TrustPoller(channel, self.verifier)
            self.depends_on("trust", lambda: poller.problem)
            self.background("trust", poller.run)
        self.background("readiness", self.readiness.run)
        self.background("audit", self.audit_trail.run)
        for name, work in self._work:
            self._tasks.append(asyncio.create_task(self._keep_running(name, work), name=name))

    async def _keep_running(self, name: str, work: Hook) -> None:
        async def attempt(_: Callable[[], None]) -> None:
            await work()

        def failed(error: Exception, repeats: bool) -> None:
            if repeats:
                return
            if isinstance(error, ServiceError):
                self.log.warning(
                    "background_work_waits", work=name, reason=error.reason, cause=error.message
                )
            else:
                self.log.error("background_work_failed", work=name, exc_info=error)

        await background.retry(
            attempt, failed, expected=Exception, longest_seconds=_LONGEST_RESTART
        )

    async def _end(self, started: list[tuple[str, Hook | None]]) -> None:
        await self.readiness.enter("the process is stopping")
        limit = self.settings.drain_seconds
        try:
            async with asyncio.timeout(limit or 0.001):
                await asyncio.gather(*(drain() for drain in self._drains))
        except TimeoutError:
            self.log.warning("drain_limit_reached", seconds=limit)
        await self._server.stop(min(limit, _STOP_SECONDS))
        self._calls.flush()
        await background.end(*self._tasks)
        await self._quietly("audit", self.audit_trail.flush)
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
            async with asyncio.timeout(_STOP_SECONDS):
                await stop()
        except Exception as exc:
            self.log.warning("stop_failed", resource=name, error=type(exc).__name__)


def _status_service(readiness: Readiness) -> tuple[ServiceDescriptor, Any, StatusServicer]:
    return (
        status_service_pb2.DESCRIPTOR.services_by_name["StatusService"],
        status_service_pb2_grpc.add_StatusServiceServicer_to_server,
        StatusServicer(readiness),
    )
