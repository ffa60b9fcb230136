"""Plans the platform's processes: from options, ports and secret files to the command and
environment of each. Pure.

Every service is told everything by STELLWERK_* variables; secrets travel as files, never as values.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "STELLWERK_"
BROKER_USERS = ("router", "runtime", "repository")
DATABASE_USERS = ("controlplane", "repository")
_DEFAULTS = {
    # A process that crashes in native code prints the Python stack of each thread.
    "PYTHONFAULTHANDLER": "1",
    # A log line reaches the supervisor at once, also if the process is killed right after it.
    "PYTHONUNBUFFERED": "1",
    # 5 s: shorter than the 10 s after which the supervisor kills a process that does not stop.
    f"{PREFIX}DRAIN_SECONDS": "5",
}
# gRPC sends even its calls to 127.0.0.1 through the proxy that these variables name.
_PROXY_EXCEPTIONS = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
_LOOPBACK = "127.0.0.1,localhost,::1"
_SINGLE = ("controlplane", "repository", "router", "api_gateway")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `stellwerk up`."""

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
    def http_address(self) -> str:
        """The address on which the gateway listens for REST."""
        return address(self.host, self.http_port)

    @property
    def grpc_address(self) -> str:
        """The address on which the gateway listens for gRPC."""
        return address(self.host, self.grpc_port)


@dataclass(frozen=True, slots=True)
class InternalPorts:
    """Ports on the loopback, chosen once, so that a process comes back where its peers look."""

    controlplane: int
    repository: int
    router: int
    runtimes: tuple[int, ...]
    mongod: int = 0
    rabbitmq: int = 0
    metrics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """Files that hold what a service must not be told as a value."""

    broker_url: Path
    mongo_url: Path
    service_keys: Path
    root_key: Path
    admin_key: Path


@dataclass(frozen=True, slots=True)
class PlannedProcess:
    """One process to keep alive."""

    name: str
    # The service it runs: its name without the number that tells several runtimes apart.
    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    # Where it answers gRPC health checks.
    address: str


def process_names(runtimes: int) -> tuple[str, ...]:
    """Returns the names of all processes in the order in which they are listed."""
    return _SINGLE + tuple(
        "runtime" if runtimes == 1 else f"runtime-{number}" for number in range(1, runtimes + 1)
    )


def plan(
    options: Options, ports: InternalPorts, files: SecretFiles, inherited: Mapping[str, str]
) -> list[PlannedProcess]:
    """Returns the processes of the platform.

    `inherited` is the user's environment; a variable that is decided here wins over it.
    """
    planned = []
    for name in process_names(options.runtimes):
        service = name.partition("-")[0]
        listen, variables = _own(name, service, options, ports, files)
        metrics = f"127.0.0.1:{ports.metrics[name]}" if name in ports.metrics else ""
        variables |= {
            "CONTROLPLANE": f"127.0.0.1:{ports.controlplane}",
            "REPOSITORY": f"127.0.0.1:{ports.repository}",
            "ROUTER": f"127.0.0.1:{ports.router}",
            "SERVICE_KEY_FILE": str(files.service_keys / f"{service}.key"),
            "METRICS_LISTEN": metrics,
            "OTEL_ENDPOINT": options.otel_endpoint,
            "LOG_LEVEL": options.log_level,
            "LOG_FORMAT": "json",
        }
        if service in BROKER_USERS:
            variables["BROKER_FILE"] = str(files.broker_url)
        if service in DATABASE_USERS:
            variables["MONGO_URL_FILE"] = str(files.mongo_url)
        # -P keeps a folder called `services` where the platform was started out of the way.
        command = (sys.executable, "-P", "-m", f"services.{service}")
        told = environment(variables, inherited, options.host)
        planned.append(PlannedProcess(name, service, command, told, reachable(listen)))
    return planned


def environment(
    variables: Mapping[str, str], inherited: Mapping[str, str], host: str = "127.0.0.1"
) -> dict[str, str]:
    """Returns the inherited environment with `variables` set under our prefix, and with no proxy
    between processes of this machine.

    X and X_FILE exclude each other, so each of `variables` displaces both.
    """
    ours = {PREFIX + key: value for key, value in variables.items()}
    displaced = {name.removesuffix("_FILE") for name in ours}
    kept = {
        name: value
        for name, value in inherited.items()
        if name.removesuffix("_FILE") not in displaced
    }
    # gRPC looks at no_grpc_proxy first and, only where that is missing, at no_proxy.
    for name in _PROXY_EXCEPTIONS:
        if name in kept or name == "no_proxy":
            kept[name] = ",".join(filter(None, (kept.get(name), _LOOPBACK, host)))
    return {**_DEFAULTS, **kept, **ours}


def _own(
    name: str, service: str, options: Options, ports: InternalPorts, files: SecretFiles
) -> tuple[str, dict[str, str]]:
    """Returns where the process listens, and the variables that its service alone knows."""
    if service == "api_gateway":
        listen = options.grpc_address
        return listen, {"LISTEN": listen, "HTTP_LISTEN": options.http_address}
    if service == "runtime":
        number = process_names(options.runtimes).index(name) - len(_SINGLE)
        listen = f"127.0.0.1:{ports.runtimes[number]}"
        # All runtimes share one folder, so that an artifact is fetched once.
        cache = str(options.data_dir / "artifacts")
        return listen, {"LISTEN": listen, "NAME": name, "CACHE_DIR": cache}
    listen = f"127.0.0.1:{getattr(ports, service)}"
    variables = {"LISTEN": listen}
    if service == "controlplane":
        variables["SERVICE_KEYS"] = str(files.service_keys)
        variables["ROOT_KEY_FILE"] = str(files.root_key)
        variables["ADMIN_KEY_FILE"] = str(files.admin_key)
        variables["GATEWAY"] = reachable(options.grpc_address)
    return listen, variables


def address(host: str, port: int) -> str:
    """Returns host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def place(url: str) -> str:
    """Returns host and port of a URL, without the credentials in it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def reachable(bound: str) -> str:
    """Returns the address to connect to for an address that was bound: a wildcard is reached on
    the loopback.
    """
    host, _, port = bound.rpartition(":")
    if host == "[::]":
        return f"[::1]:{port}"
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "") else bound
