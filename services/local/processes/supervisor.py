"""Brings the platform up, keeps it up, and takes it down in order.

Up: everything starts at the same time and finds its peers by itself. Down: the gateway first, so
that nothing new comes in, then runtimes, router, repository and control plane, at last the broker
and the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import grpc

from services.local import ports
from services.local.backing.servers import Backing, choose_broker, choose_mongo, pull
from services.local.lock import DataDirectoryLock
from services.local.plan import (
    BROKER_USERS,
    Options,
    Ports,
    Service,
    process_names,
    reachable,
    services,
)
from services.local.processes import readiness
from services.local.processes.child import StartFailed
from services.local.processes.logs import LogStream
from services.local.processes.ready import ReadyFile, Report
from services.local.processes.supervised import Supervised
from services.local.secrets import write

STOP_SECONDS = 30.0
READY_SECONDS = 180.0
_POLL_SECONDS, _COMPLAIN_SECONDS = 0.1, 10.0
# The token lives a day and is renewed every hour, so the file always holds one that is good for
# long.
TOKEN_LIFETIME, TOKEN_RENEWAL = 24 * 3600, 3600.0
# A process gets at most this much of the time for stopping, so that one that hangs leaves some to
# the others.
_STOP_EACH = 10.0
_STOP_ORDER = ("api_gateway", "runtime", "router", "repository", "controlplane")


class NeverReady(Exception):
    """The platform did not become ready; the message says what was missing."""


class Supervisor:
    """One platform in one data directory."""

    def __init__(self, options: Options, environ: Mapping[str, str], logs: LogStream) -> None:
        self._options = options
        self._environ = environ
        self._logs = logs
        self._lock = DataDirectoryLock(options.data_dir)
        self._ready_file = ReadyFile(options.data_dir / "ready.json")
        self._report: Report | None = None
        self._opening: list[asyncio.Task[None]] = []
        self._backings: list[Backing] = []
        self._broker = pull("as told")
        self._processes: list[Supervised] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, announce: Callable[[str], None]) -> None:
        """Starts everything and announces one JSON line when ready.

        Raises PortTaken, AlreadyRunning, StartFailed or NeverReady; call `stop` in any case.
        """
        options = self._options
        options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire()
        self._ready_file.remove()
        ports.require(options.host, options.http_port, "--http-port")
        ports.require(options.host, options.grpc_port, "--grpc-port")
        internal = choose_ports(options)
        options.secrets.create()
        began = time.monotonic()
        mongo = choose_mongo(options.mongo_url, options.data_dir, internal.mongod)
        self._broker = choose_broker(options.broker, options.data_dir, internal.rabbitmq)
        self._backings = [mongo, self._broker]
        # Nobody waits for anybody here: whoever is up first looks for the others until they are
        # there.
        self._opening = [
            asyncio.create_task(mongo.start()),
            asyncio.create_task(self._start_broker()),
        ]
        self._launch(self._plan(internal, mongo))
        opened, _ = await asyncio.wait(self._opening, return_when=asyncio.FIRST_EXCEPTION)
        for opening in opened:
            opening.result()
        self._keep_backings()
        self._logs.say("backings_ready", broker=self._broker.description, mongo=mongo.description)
        token_file = options.data_dir / "token"
        await self._wait_until_ready(token_file, began)
        self._report = Report(
            http=_url("http://", options.host, options.http_port),
            grpc=_url("", options.host, options.grpc_port),
            token_file=token_file,
            broker=self._broker.description,
            mongo=mongo.description,
            metrics={
                name: f"http://127.0.0.1:{port}/metrics" for name, port in internal.metrics.items()
            },
        )
        self._logs.say("ready", seconds=round(time.monotonic() - began, 1), http=self._report.http)
        announce(self._write_ready() or "")

    async def stop(self) -> None:
        """Takes everything down within STOP_SECONDS; safe to call whatever `start` reached."""
        if not self._lock.held:
            return
        deadline = time.monotonic() + STOP_SECONDS
        self._ready_file.remove()
        self._report = None
        if self._processes:
            self._logs.say("stopping", processes=len(self._processes))
        keepers, self._tasks = self._tasks, []
        for task in keepers:
            if task.get_name() != "process":
                task.cancel()
        for kind in _STOP_ORDER:
            stage = [
                process for process in self._processes if process.name.partition("-")[0] == kind
            ]
            grace = max(min(_STOP_EACH, deadline - time.monotonic() - 3.0), 0.2)
            await asyncio.gather(*(process.stop(grace) for process in stage))
        await asyncio.gather(*keepers, return_exceptions=True)
        # What is still starting is stopped when it has.
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.gather(*(backing.stop() for backing in self._backings))
        if self._processes:
            self._logs.say("stopped")
        self._lock.release()

    def kill(self) -> None:
        """Ends everything at once."""
        if self._lock.held:
            self._ready_file.remove()
        for process in self._processes:
            process.kill()
        for backing in self._backings:
            backing.kill()

    async def _start_broker(self) -> None:
        """Where a private RabbitMQ does not start, the built-in dispatch takes its place."""
        try:
            await self._broker.start()
        except StartFailed as exc:
            self._logs.say("rabbitmq_failed", problem=str(exc))
            self._broker = self._backings[1] = pull("the installed RabbitMQ did not start")
            write(self._broker_file, self._broker.url)
            for process in self._processes:
                if process.name.partition("-")[0] in BROKER_USERS:
                    process.restart()

    @property
    def _broker_file(self) -> Path:
        return self._options.secrets.directory / "broker-url"

    def _plan(self, internal: Ports, mongo: Backing) -> list[Service]:
        mongo_file = self._options.secrets.directory / "mongo-url"
        write(self._broker_file, self._broker.url)
        write(mongo_file, mongo.url)
        return services(
            self._options,
            internal,
            broker_file=self._broker_file,
            mongo_file=mongo_file,
            inherited=self._environ,
        )

    def _launch(self, planned: list[Service]) -> None:
        working = self._options.data_dir / "run"
        working.mkdir(exist_ok=True, mode=0o700)
        for service in planned:
            process = Supervised(service, working, self._logs, self._changed)
            self._processes.append(process)
            self._tasks.append(asyncio.create_task(process.run(), name="process"))

    def _keep_backings(self) -> None:
        for backing in self._backings:
            self._tasks.append(
                asyncio.create_task(backing.keep(self._logs, self._changed), name="backing")
            )

    async def _wait_until_ready(self, token_file: Path, began: float) -> None:
        addresses = {process.name: process.service.address for process in self._processes}
        complained = time.monotonic()
        while waiting := await self._missing(addresses, token_file):
            now = time.monotonic()
            if now - began > READY_SECONDS:
                raise NeverReady(f"not ready after {READY_SECONDS:.0f} s: {'; '.join(waiting)}")
            if now - complained > _COMPLAIN_SECONDS:
                complained = now
                self._logs.say("waiting", missing=waiting)
            await asyncio.sleep(_POLL_SECONDS)
        self._tasks.append(asyncio.create_task(self._renew_token(token_file), name="token"))

    async def _missing(self, addresses: dict[str, str], token_file: Path) -> list[str]:
        """What is still missing, one sentence each. Writes the token file on the way."""
        waiting = await readiness.problems(addresses)
        if waiting:
            return waiting
        try:
            token = await self._fetch_token()
        except grpc.aio.AioRpcError as exc:
            if exc.code() == grpc.StatusCode.UNAUTHENTICATED:
                key = self._options.secrets.admin_key
                raise NeverReady(
                    f"this database knows another administrator's key than {key}; put the right one"
                    " there, or start once with STELLWERK_NEW_ADMIN_KEY=true to make the new one"
                    " good"
                ) from None
            return [f"controlplane gives no token ({exc.code().name})"]
        try:
            attached = await readiness.attached_runtimes(addresses["router"], token)
        except grpc.aio.AioRpcError as exc:
            return [f"router does not list its runtimes ({exc.code().name})"]
        if not attached:
            return ["no runtime has attached to the router"]
        write(token_file, token)
        # Last, with no await after it: a process may have ended since it answered, and a program
        # that took its port may have answered in its place.
        return [
            f"{process.name} does not listen on {process.service.address}"
            for process in self._processes
            if not process.listens_on(int(process.service.address.rpartition(":")[2]))
        ]

    async def _fetch_token(self) -> str:
        address = next(
            process.service.address for process in self._processes if process.name == "controlplane"
        )
        key = self._options.secrets.admin_key.read_text().strip()
        return (await readiness.issue_token(address, key, TOKEN_LIFETIME)).text

    async def _renew_token(self, token_file: Path) -> None:
        while True:
            await asyncio.sleep(TOKEN_RENEWAL)
            try:
                write(token_file, await self._fetch_token())
            except (grpc.aio.AioRpcError, OSError):
                self._logs.say("token_not_renewed")

    def _changed(self) -> None:
        self._write_ready()

    def _write_ready(self) -> str | None:
        if self._report is None:
            return None
        running: list[Supervised | Backing] = [*self._processes, *self._backings]
        pids = {part.name: part.pid for part in running if part.pid is not None}
        self._report = replace(self._report, pids=pids)
        return self._ready_file.write(self._report)


def choose_ports(options: Options) -> Ports:
    """Chooses a port for every process; metrics ports count up from --metrics-port, if given.

    Raises PortTaken if a port of --metrics-port cannot be bound, or too few ports are free.
    """
    names = process_names(options.runtimes)
    # Ports that the user chose are not bound yet, so that they look free.
    promised = {options.http_port, options.grpc_port}
    metrics: list[int] = []
    if options.metrics_port:
        metrics = [options.metrics_port + offset for offset in range(len(names))]
        for port in metrics:
            ports.require("127.0.0.1", port, "--metrics-port")
    free = iter(ports.reserve(5 + options.runtimes + len(names), excluding=promised | set(metrics)))
    return Ports(
        controlplane=next(free),
        repository=next(free),
        router=next(free),
        mongod=next(free),
        rabbitmq=next(free),
        runtimes=tuple(next(free) for _ in range(options.runtimes)),
        metrics=dict(zip(names, metrics or free, strict=False)),
    )


def _url(scheme: str, host: str, port: int) -> str:
    return scheme + reachable(f"{host}:{port}")
