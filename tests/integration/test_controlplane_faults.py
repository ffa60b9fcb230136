"""The control plane's process killed, its database killed, its settings wrong: nothing acknowledged
is lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.controlplane.config import ControlPlaneSettings
from services.controlplane.identity.keys import new_service_key
from services.local.backing.mongod import Mongod, executable
from services.local.ports import free_port
from services.local.processes.child import Child
from stellwerk.controlplane.v1 import audit_service_pb2 as audit
from stellwerk.controlplane.v1 import identity_service_pb2 as pb
from tests.integration.controlplane_caller import (
    ROUTER_KEY,
    Caller,
    code_of,
    running,
    settings_for,
    until,
)

ROOT = Path(__file__).parents[2]
ROOT_KEY = f"canary-{uuid.uuid4().hex}-{uuid.uuid4().hex}"


@dataclass
class _Server:
    """`python -m services.controlplane` on a fixed port, to be killed and started again."""

    directory: Path
    mongo_url: str
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        nowhere = "127.0.0.1:1"
        told = {
            "LISTEN": f"127.0.0.1:{self.port}",
            "MONGO_URL": self.mongo_url,
            "MONGO_DATABASE": f"cp_{self.port}",
            "ROOT_KEY": ROOT_KEY,
            "SERVICE_KEYS": str(self.directory),
            "ADMIN_KEY_FILE": str(self.admin_key),
            "ROUTER": nowhere,
            "REPOSITORY": nowhere,
            "DRAIN_SECONDS": "1",
        }
        return _environment({f"STELLWERK_{name}": value for name, value in told.items()})

    @property
    def admin_key(self) -> Path:
        return self.directory / "admin" / "admin.key"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.controlplane",
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await self.process.wait()


def _environment(told: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STELLWERK_")}
    path = os.pathsep.join(str(ROOT / name) for name in ("", "generated", "sdk"))
    return {**kept, "PYTHONPATH": path, **told}


@asynccontextmanager
async def _caller(server: _Server) -> AsyncIterator[Caller]:
    options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield Caller(channel)


async def _admin(anyone: Caller, server: _Server) -> Caller:
    """The administrator's caller, as soon as it can be had."""
    found: list[Caller] = []

    async def ask() -> bool:
        if not server.admin_key.exists():
            return False
        try:
            found.append(await anyone.as_key(server.admin_key.read_text().strip(), 3600))
        except grpc.aio.AioRpcError as exc:
            assert exc.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)
        return bool(found)

    await until(ask, 60)
    return found[0]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Mongod]:
    """A MongoDB of the test's own, since it gets killed."""
    server = Mongod(tmp_path / "mongod")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def test_killed_in_the_midst_of_changes_it_has_a_record_of_each_and_a_whole_chain(
    mongod: str, tmp_path: Path
) -> None:
    server = _Server(tmp_path, mongod, free_port())
    acknowledged: list[str] = []
    await server.start()
    async with _caller(server) as anyone:
        admin = await _admin(anyone, server)

        async def create(worker: int) -> None:
            for number in range(1000):
                name = f"principals/w{worker}-{len(acknowledged)}-{number}"
                request = pb.CreatePrincipalRequest(principal=pb.Principal(name=name))
                await admin(admin.identity.CreatePrincipal, request)
                acknowledged.append(name)

        for round_ in range(1, 4):
            enough = 40 * round_
            workers = [asyncio.create_task(create(worker)) for worker in range(8)]
            await until(lambda enough=enough: len(acknowledged) >= enough, 60)
            await server.kill()
            outcomes = await asyncio.gather(*workers, return_exceptions=True)
            assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
            await server.start()
            admin = await _admin(anyone, server)

        finding = await admin(admin.audit.Verify, audit.VerifyRequest())
        existing = await _names(admin)
        intents = {
            record.resource
            for record in await _records(admin)
            if record.kind == audit.AuditRecord.KIND_INTENT
        }
    assert await server.end() == 0

    assert finding.intact and finding.checked == finding.last_sequence >= len(acknowledged)
    assert set(acknowledged) <= existing, "an acknowledged change is gone"
    assert existing <= intents, "a change was made without a record"


async def _names(admin: Caller) -> set[str]:
    listed = await admin(admin.identity.ListPrincipals, pb.ListPrincipalsRequest(page_size=1000))
    assert not listed.next_page_token
    return {principal.name for principal in listed.principals}


async def _records(admin: Caller) -> list[audit.AuditRecord]:
    found: list[audit.AuditRecord] = []
    token = ""
    while True:
        page = await admin(
            admin.audit.ListRecords, audit.ListRecordsRequest(page_size=1000, page_token=token)
        )
        found += page.records
        token = page.next_page_token
        if not token:
            return found


async def _append(router: Caller, acknowledged: list[int]) -> bool:
    """Appends one record and notes its number; False if the control plane says that it cannot."""
    record = audit.AuditRecord(kind=audit.AuditRecord.KIND_REFUSAL, principal="principals/eve")
    try:
        answer = await router(
            router.audit.AppendRecords, audit.AppendRecordsRequest(records=[record])
        )
    except grpc.aio.AioRpcError as exc:
        assert exc.code() is grpc.StatusCode.UNAVAILABLE
        return False
    acknowledged.append(answer.last_sequence)
    return True


async def _append_for_ever(router: Caller, acknowledged: list[int]) -> None:
    while await _append(router, acknowledged):
        pass


async def test_a_database_killed_and_started_again_loses_nothing_and_needs_no_restart_of_ours(
    database: Mongod, tmp_path: Path
) -> None:
    key = new_service_key("router")
    (tmp_path / "router.key").write_text(key)
    server = _Server(tmp_path, database.url, free_port())
    acknowledged: list[int] = []
    await server.start()
    async with _caller(server) as anyone:
        admin = await _admin(anyone, server)
        router = await anyone.as_key(key)
        workers = [asyncio.create_task(_append_for_ever(router, acknowledged)) for _ in range(8)]
        await until(lambda: len(acknowledged) >= 100, 60)
        await asyncio.to_thread(database.kill)
        await asyncio.gather(*workers)
        # Verified from memory: it goes on saying who may do what, and issues services their tokens.
        assert (
            await admin(admin.identity.GetCaller, pb.GetCallerRequest())
        ).principal == "principals/admin"
        assert (await anyone.as_key(key)).token

        await asyncio.to_thread(database.start)
        back = time.monotonic()

        await until(lambda: _append(router, acknowledged), 30)
        recovery = time.monotonic() - back
        finding = await admin(admin.audit.Verify, audit.VerifyRequest())
    assert await server.end() == 0

    assert recovery < 10
    assert finding.intact and finding.last_sequence >= max(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged)


async def test_no_secret_enters_the_log(mongod: str, tmp_path: Path) -> None:
    server = _Server(tmp_path, mongod, free_port())
    key = new_service_key("router")
    (tmp_path / "router.key").write_text(key)
    await server.start()
    async with _caller(server) as anyone:
        admin = await _admin(anyone, server)
        secret = await admin.make("ada", "viewer")
        ada = await anyone.as_key(secret)
        router = await anyone.as_key(key)
        for bad in (secret + "x", admin.token):
            with pytest.raises(grpc.aio.AioRpcError):
                await anyone.as_key(bad)
    assert await server.end() == 0

    log = server.log.read_text()
    assert "administrator_key_made" in log and "CreatePrincipal" in log
    password = mongod.partition("@")[0].rpartition(":")[2]
    for canary in (server.admin_key.read_text().strip(), secret, key, ROOT_KEY, password):
        assert canary not in log and canary[-30:] not in log
    for token in (admin.token, ada.token, router.token):
        assert token not in log and token.rpartition(".")[2] not in log


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"ROOT_KEY": None}, "STELLWERK_ROOT_KEY: "),
        ({"ROOT_KEY": "canary-short"}, "STELLWERK_ROOT_KEY: "),
        ({"MONGO_URL": "canary-host:27017"}, "STELLWERK_MONGO_URL: "),
        ({"TOKEN_LIFETIME_SECONDS": "90000"}, "STELLWERK_TOKEN_LIFETIME_SECONDS: "),
    ],
)
async def test_wrong_settings_end_it_with_one_line_that_names_the_variable(
    tmp_path: Path, changes: dict[str, str | None], line: str
) -> None:
    environment = _Server(tmp_path, "mongodb://127.0.0.1:1", free_port()).environment
    environment |= {
        f"STELLWERK_{name}": value for name, value in changes.items() if value is not None
    }
    for name in [name for name, value in changes.items() if value is None]:
        del environment[f"STELLWERK_{name}"]

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.controlplane",
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()

    lines = [json.loads(text) for text in errors.decode().splitlines()]
    assert process.returncode == os.EX_CONFIG
    assert [told["level"] for told in lines] == ["error"]
    assert f"{lines[0]['variable']}: {lines[0]['problem']}".startswith(line)
    assert "canary" not in errors.decode()


# --- in this process


async def _serving(channel: grpc.aio.Channel, service: str = "") -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_without_its_database_it_lives_says_why_and_is_not_ready(tmp_path: Path) -> None:
    nowhere = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    async with running(settings_for(nowhere, tmp_path)) as (process, channel):
        await until(
            lambda: any(
                "database does not answer" in reason for reason in process.readiness.reasons()
            )
        )

        assert not await _serving(channel) and await _serving(channel, "liveness")
        caller = Caller(channel)
        for call in (
            caller(caller.identity.GetTrust, pb.GetTrustRequest()),
            caller.as_key(ROUTER_KEY),
            caller.as_key(f"swk_{'0' * 16}_{'a' * 43}"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call
            assert code_of(failure) == "UNAVAILABLE"


async def test_without_a_place_for_the_first_key_it_says_so(mongod: str, tmp_path: Path) -> None:
    async with running(settings_for(mongod, tmp_path, admin_key_file=None)) as (process, _):
        await until(
            lambda: any(
                "STELLWERK_ADMIN_KEY_FILE" in reason for reason in process.readiness.reasons()
            )
        )


async def test_with_another_root_key_it_says_so_and_with_the_right_one_old_tokens_are_good(
    mongod: str, tmp_path: Path
) -> None:
    settings = settings_for(mongod, tmp_path)
    assert settings.admin_key_file is not None
    async with running(settings) as (process, channel):
        await until(lambda: not process.readiness.reasons())
        admin = await Caller(channel).as_key(settings.admin_key_file.read_text().strip())

    other = ControlPlaneSettings(**{**dict(settings), "root_key": "x" * 32})
    async with running(other) as (process, _):
        await until(
            lambda: any("STELLWERK_ROOT_KEY" in reason for reason in process.readiness.reasons())
        )

    async with running(settings) as (process, channel):
        await until(lambda: not process.readiness.reasons())
        admin = Caller(channel, admin.token)
        assert (
            await admin(admin.identity.GetCaller, pb.GetCallerRequest())
        ).principal == "principals/admin"


async def test_a_mongodb_without_transactions_is_named(tmp_path: Path) -> None:
    mongod = executable()
    assert mongod is not None
    port, data = free_port(), tmp_path / "standalone"
    data.mkdir()
    child = Child("mongod", data)
    command = [
        mongod,
        "--dbpath",
        data,
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--wiredTigerCacheSizeGB",
        "0.25",
    ]
    await asyncio.to_thread(child.start, command)
    try:
        settings = settings_for(f"mongodb://127.0.0.1:{port}/?directConnection=true", tmp_path)
        async with running(settings) as (process, _):
            await until(
                lambda: any("replica set" in reason for reason in process.readiness.reasons())
            )
    finally:
        await asyncio.to_thread(child.stop)
