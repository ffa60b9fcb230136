"""Brings the platform up, keeps it up, and takes it down in order.

Up: everything starts at the same time and finds its peers by itself. Down: the gateway first, so
that no new call comes in, then the runtimes, then router and repository, then the control plane and
the broker, at last the database. Before it was ready no call came in, and all end at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from services.local.backing.servers import Backing, choose_broker, choose_mongo, pull
from services.local.data_directory import DataDirectory
from services.local.errors import StartFailed
from services.local.plan import (
    BROKER_USERS,
    DATABASE_USERS,
    InternalPorts,
    Options,
    PlannedProcess,
    plan,
    reachable,
)
from services.local.preflight import check_settings, choose_ports
from services.local.processes.health import Health
from services.local.processes.logs import Logs
from services.local.processes.supervised import Supervised
from services.local.ready_report import ReadyReport
from services.local.secrets import write
from services.local.startup import StartupChecks

# The whole platform stops within this time; one process gets at most _STOP_EACH of it, so that one
# that hangs leaves some to the others.
STOP_SECONDS = 30.0
_STOP_EACH = 10.0
# The services of one stage need only those of later stages while they stop.
_STOP_STAGES = (("api_gateway",), ("runtime",), ("router", "repository"))
# 1 s: a service that has begun to start, and waits for its peers, needs longer to give up.
_STOP_UNREADY = 1.0
# Kept for the broker and the database, which stop last.
_STOP_BACKINGS = 3.0
# 180 s: a cold start of all parts on one slow core takes about a minute.
READY_SECONDS = 180.0
_POLL_SECONDS = 0.1
_COMPLAIN_SECONDS = 30.0


class Supervisor:
    """One platform in one data directory."""

    def __init__(self, options: Options, environ: Mapping[str, str], logs: Logs) -> None:
        self._options = options
        self._environ = environ
        self._logs = logs
        self._directory = DataDirectory(options.data_dir)
        self._report: ReadyReport | None = None
        self._stopping = False
        self._mongo = Backing("mongod", "MongoDB", "not chosen yet")
        self._broker = pull("not chosen yet")
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._processes: list[Supervised] = []
        # Tasks that keep the processes alive end with their process; the others are cancelled.
        self._keepers: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> ReadyReport:
        """Starts everything and returns the report when the platform is ready.

        Raises StartFailed; call `stop` in any case.
        """
        began = time.monotonic()
        # First: a platform that runs here already also holds the ports.
        self._directory.open()
        internal = choose_ports(self._options)
        self._logs.keep_in(self._directory.logs)
        self._mongo = choose_mongo(self._options.mongo_url, self._options.data_dir, internal.mongod)
        self._broker = choose_broker(
            self._options.broker, self._options.data_dir, internal.rabbitmq
        )
        planned = self._plan(internal)
        check_settings(planned)
        health = Health(self._environ)
        await self._try_given()
        # No process waits for another to be started: each looks for its peers until they are there.
        if self._mongo.is_ours:
            self._opening["mongod"] = asyncio.create_task(self._mongo.start())
        if self._broker.is_ours:
            self._opening["rabbitmq"] = asyncio.create_task(self._start_broker())
        self._launch(planned)
        checks = StartupChecks(self._processes, self._directory, health)
        await self._wait_until_ready(checks, began)
        self._report = self._describe(internal)
        self._write_ready()
        lasting = [backing.keep(self._logs, self._write_ready) for backing in self._backings]
        lasting.append(checks.renew_token(self._logs))
        self._tasks = [asyncio.create_task(work) for work in lasting]
        return self._report

    async def stop(self) -> None:
        """Takes everything down within STOP_SECONDS; safe to call whatever `start` reached."""
        if not self._directory.locked:
            return
        deadline = time.monotonic() + STOP_SECONDS
        self._stopping = True
        self._directory.ready.unlink(missing_ok=True)
        was_ready = self._report is not None
        self._report = None
        if self._processes:
            self._logs.say("stopping", processes=len(self._processes))
        for task in self._tasks:
            task.cancel()
        for backing in self._backings:
            backing.abandon()
        if was_ready:
            for services in _STOP_STAGES:
                await self._stop_services(services, deadline)
        else:
            ending = (process.stop(_STOP_UNREADY, quiet=True) for process in self._processes)
            await asyncio.gather(*ending, *self._opening.values(), return_exceptions=True)
        # No service needs the broker any more; the control plane still writes its ledger.
        await asyncio.gather(self._stop_ledger(deadline), self._broker.stop())
        await asyncio.gather(*self._keepers, *self._tasks, return_exceptions=True)
        if self._processes:
            self._logs.say("stopped")
        self._directory.release()

    async def _stop_ledger(self, deadline: float) -> None:
        """Stops the control plane, then the database that holds its ledger."""
        await self._stop_services(("controlplane",), deadline)
        await self._mongo.stop()

    async def _stop_services(self, services: tuple[str, ...], deadline: float) -> None:
        left = deadline - time.monotonic() - _STOP_BACKINGS
        grace = max(min(_STOP_EACH, left), 0.2)
        stage = [process for process in self._processes if process.planned.service in services]
        await asyncio.gather(*(process.stop(grace) for process in stage))

    def kill(self) -> None:
        """Ends everything at once."""
        if self._directory.locked:
            self._directory.ready.unlink(missing_ok=True)
        for process in self._processes:
            process.kill()
        for backing in self._backings:
            backing.kill()

    @property
    def _backings(self) -> tuple[Backing, Backing]:
        return self._mongo, self._broker

    async def _try_given(self) -> None:
        """Connects to the servers that the user names, so that a wrong address ends it at once."""
        given = [backing for backing in self._backings if not backing.is_ours]
        await asyncio.gather(*(backing.start() for backing in given))

    async def _start_broker(self) -> None:
        """Starts RabbitMQ; where it does not start, the built-in dispatch takes its place."""
        try:
            await self._broker.start()
        except StartFailed as exc:
            if self._stopping:
                return
            self._logs.say(
                "rabbitmq_failed",
                f"{exc}; the built-in dispatch takes its place",
                level="warning",
                problem=str(exc),
            )
            self._broker = pull("the installed RabbitMQ did not start")
            write(self._directory.secret_files.broker_url, self._broker.url)
            for process in self._processes:
                if process.planned.service in BROKER_USERS:
                    process.restart()

    def _plan(self, internal: InternalPorts) -> list[PlannedProcess]:
        files = self._directory.secret_files
        write(files.broker_url, self._broker.url)
        write(files.mongo_url, self._mongo.url)
        return plan(self._options, internal, files, self._environ)

    def _launch(self, planned: list[PlannedProcess]) -> None:
        for process in planned:
            supervised = Supervised(process, self._directory.run, self._logs, self._write_ready)
            self._processes.append(supervised)
            # A new database refuses every client until its user is made; then it never does again.
            waits = process.service in DATABASE_USERS and self._mongo.is_new
            run = supervised.run(after=self._opening["mongod"] if waits else None)
            self._keepers.append(asyncio.create_task(run))

    async def _wait_until_ready(self, checks: StartupChecks, began: float) -> None:
        complained = began
        awaited = [part.name for part in self._backings if part.is_ours]
        awaited += [process.name for process in self._processes]
        while True:
            missing = await self._missing(checks)
            now = time.monotonic()
            for name in [name for name in awaited if name not in missing]:
                awaited.remove(name)
                self._logs.part_ready(name, now - began)
            if not missing:
                return
            told = "; ".join(f"{name} {problem}" for name, problem in missing.items())
            if now - began > READY_SECONDS:
                raise StartFailed(f"not ready after {READY_SECONDS:.0f} s: {told}")
            if now - complained > _COMPLAIN_SECONDS:
                complained = now
                self._logs.say("waiting", f"still waiting: {told}", missing=missing)
            self._logs.progress(f"starting ({now - began:.0f} s): {', '.join(missing)}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _missing(self, checks: StartupChecks) -> dict[str, str]:
        """Returns what is missing by part. Raises StartFailed if a part cannot start at all."""
        opening = {}
        for name, task in self._opening.items():
            if task.done():
                task.result()
            else:
                opening[name] = "is starting"
        return opening | await checks.missing()

    def _describe(self, internal: InternalPorts) -> ReadyReport:
        return ReadyReport(
            http=f"http://{reachable(self._options.http_address)}",
            grpc=reachable(self._options.grpc_address),
            token_file=self._directory.token,
            broker=self._broker.description,
            mongo=self._mongo.description,
            metrics={
                name: f"http://127.0.0.1:{port}/metrics" for name, port in internal.metrics.items()
            },
            pids=self._pids(),
        )

    def _pids(self) -> dict[str, int]:
        running: list[Supervised | Backing] = [*self._processes, self._mongo, self._broker]
        return {part.name: part.pid for part in running if part.pid is not None}

    def _write_ready(self) -> None:
        """Writes the ready file anew, since a process has a new pid or none."""
        if self._report is not None:
            self._report = replace(self._report, pids=self._pids())
            write(self._directory.ready, f"{self._report.as_json()}\n")
