"""What to start: from options, ports and secrets to the command and environment of each service.
Pure.

Every service is told everything by STELLWERK_* variables; secrets travel as files, never as values.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.local.secrets import Secrets

PREFIX = "STELLWERK_"
BROKER_USERS = ("router", "runtime", "repository")
_DEFAULTS = {
    # A crash is worth its traceback, and a line of log is worth most at once.
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
    # Shorter than what the supervisor grants a process to stop.
    f"{PREFIX}DRAIN_SECONDS": "5",
}
# Several runtimes are told apart by number; a lone one is called as its service.
_SINGLE = ("controlplane", "repository", "router", "api_gateway")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user of `stellwerk up` asked for."""

    data_dir: Path
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 8081
    metrics_port: int = 0
    runtimes: int = 1
    broker: str = "auto"
    mongo_url: str = ""
    otel_endpoint: str = ""
    log_level: str = "info"

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.data_dir / "secrets")


@dataclass(frozen=True, slots=True)
class Ports:
    """Internal ports, chosen once, so that a service comes back where its peers look for it."""

    controlplane: int
    repository: int
    router: int
    runtimes: tuple[int, ...]
    mongod: int = 0
    rabbitmq: int = 0
    metrics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep alive."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    # Where it answers gRPC health checks.
    address: str


def process_names(runtimes: int) -> tuple[str, ...]:
    """The names of all processes, in the order in which they are listed."""
    return _SINGLE + tuple(
        "runtime" if runtimes == 1 else f"runtime-{number}" for number in range(1, runtimes + 1)
    )


def services(
    options: Options,
    ports: Ports,
    *,
    broker_file: Path,
    mongo_file: Path,
    inherited: Mapping[str, str],
) -> list[Service]:
    """The processes of the platform. `inherited` is the user's environment; what is decided here
    wins over it.
    """
    shared = _shared(options, ports)
    built = []
    for name in process_names(options.runtimes):
        kind = "runtime" if name.startswith("runtime") else name
        address, own = _own(name, kind, options, ports, mongo_file)
        told = shared | own
        if kind in BROKER_USERS:
            told["BROKER_FILE"] = str(broker_file)
        told["SERVICE_KEY_FILE"] = str(options.secrets.service_key(kind))
        told["METRICS_LISTEN"] = f"127.0.0.1:{ports.metrics[name]}" if name in ports.metrics else ""
        # -P: a folder `services` where the child happens to run must not win over ours.
        command = (sys.executable, "-P", "-m", f"services.{kind}")
        built.append(Service(name, command, environment(told, inherited), address))
    return built


def environment(told: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The inherited environment with our variables set: X and X_FILE exclude each other, so ours
    displaces both.
    """
    ours = {PREFIX + key: value for key, value in told.items()}
    displaced = {name.removesuffix("_FILE") for name in ours}
    kept = {
        name: value
        for name, value in inherited.items()
        if name.removesuffix("_FILE") not in displaced
    }
    return {**_DEFAULTS, **kept, **ours}


def _shared(options: Options, ports: Ports) -> dict[str, str]:
    return {
        "CONTROLPLANE": f"127.0.0.1:{ports.controlplane}",
        "REPOSITORY": f"127.0.0.1:{ports.repository}",
        "ROUTER": f"127.0.0.1:{ports.router}",
        "OTEL_ENDPOINT": options.otel_endpoint,
        "LOG_LEVEL": options.log_level,
        "LOG_FORMAT": "json",
    }


def _own(
    name: str, kind: str, options: Options, ports: Ports, mongo_file: Path
) -> tuple[str, dict[str, str]]:
    """Where the process answers health checks, and the variables that only its service knows."""
    if kind == "api_gateway":
        http, grpc = f"{options.host}:{options.http_port}", f"{options.host}:{options.grpc_port}"
        return reachable(grpc), {"LISTEN": grpc, "HTTP_LISTEN": http}
    if kind == "runtime":
        number = process_names(options.runtimes).index(name) - len(_SINGLE)
        address = f"127.0.0.1:{ports.runtimes[number]}"
        # One folder for all: they share what one of them has fetched.
        return address, {
            "LISTEN": address,
            "NAME": name,
            "CACHE_DIR": str(options.data_dir / "artifacts"),
        }
    address = f"127.0.0.1:{getattr(ports, kind)}"
    own = {"LISTEN": address}
    if kind in ("controlplane", "repository"):
        own["MONGO_URL_FILE"] = str(mongo_file)
    if kind == "controlplane":
        own["SERVICE_KEYS"] = str(options.secrets.service_keys)
        own["ROOT_KEY_FILE"] = str(options.secrets.root_key)
        own["ADMIN_KEY_FILE"] = str(options.secrets.admin_key)
        own["GATEWAY"] = reachable(f"{options.host}:{options.grpc_port}")
    return address, own


def reachable(address: str) -> str:
    """An address to connect to for an address that was bound: the wildcard is reached on the
    loopback.
    """
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "::", "[::]", "") else address
