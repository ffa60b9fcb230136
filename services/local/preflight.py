"""Checks what the user asked for before anything is started: variables, host, ports, settings.

Every refusal is one sentence that names the option or variable to change.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.api_gateway.config import GatewaySettings
from services.chassis.config import ConfigError, ServiceSettings, load
from services.controlplane.config import ControlPlaneSettings
from services.local import ports
from services.local.errors import StartFailed
from services.local.plan import PREFIX, InternalPorts, Options, PlannedProcess, process_names
from services.repository.config import RepositorySettings
from services.router.config import RouterSettings
from services.runtime.config import RuntimeSettings

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "api_gateway": GatewaySettings,
    "controlplane": ControlPlaneSettings,
    "repository": RepositorySettings,
    "router": RouterSettings,
    "runtime": RuntimeSettings,
}
# Variables of the client, of `stellwerk up`, of compose.yaml and of tools/install.sh, which may
# stand in the same shell.
_OTHERS = (
    *("URL", "TOKEN", "TOKEN_FILE", "CA", "DATA_DIR"),
    *("BIND", "HTTP_PORT", "GRPC_PORT", "NO_APT"),
)
# Similarity of two names, from 0 to 1, from which one is a misspelling of the other: 0.8 finds two
# swapped letters in a name of six. A service is stricter, since it does not know all names.
_LIKENESS = 0.8


@dataclass(frozen=True, slots=True)
class Misspelling:
    """A variable with our prefix that no part of the platform reads."""

    variable: str
    # The known variable most like it; "" if none is like it.
    meant: str


def check_variables(environ: Mapping[str, str]) -> list[str]:
    """Returns the variables with our prefix that nobody reads and that are like no known one.

    Raises StartFailed for those that look like a misspelling.
    """
    unknown = _unknown(environ)
    misspelt = [found for found in unknown if found.meant]
    if misspelt:
        told = "; ".join(
            f"{found.variable} is no setting, did you mean {found.meant}?" for found in misspelt
        )
        raise StartFailed(f"{told} Correct or unset it (docs/reference/settings.md lists all)")
    return [found.variable for found in unknown]


def choose_ports(options: Options) -> InternalPorts:
    """Chooses a port for every process, after it has checked that the user's ports can be bound.

    Metrics ports count up from --metrics-port, if given. Raises StartFailed, naming the option of
    a port that two parts would share or that cannot be bound.
    """
    names = process_names(options.runtimes)
    metrics = [options.metrics_port + n for n in range(len(names))] if options.metrics_port else []
    if options.http_port == options.grpc_port:
        raise StartFailed(
            f"--http-port and --grpc-port are both {options.http_port}; give each a port of its own"
        )
    for port, option in ((options.http_port, "--http-port"), (options.grpc_port, "--grpc-port")):
        if port in metrics:
            raise StartFailed(
                f"{option} {port} is one of the {len(metrics)} ports from --metrics-port"
                f" {options.metrics_port} on; change one of the two"
            )
    ports.require_host(options.host)
    ports.require(options.host, options.http_port, "--http-port")
    ports.require(options.host, options.grpc_port, "--grpc-port")
    for port in metrics:
        ports.require("127.0.0.1", port, "--metrics-port")
    # The user's ports are not bound yet, so that they look free.
    promised = {options.http_port, options.grpc_port, *metrics}
    free = iter(ports.reserve(5 + options.runtimes + len(names), excluding=promised))
    return InternalPorts(
        controlplane=next(free),
        repository=next(free),
        router=next(free),
        mongod=next(free),
        rabbitmq=next(free),
        runtimes=tuple(next(free) for _ in range(options.runtimes)),
        metrics=dict(zip(names, metrics or free, strict=False)),
    )


def check_settings(planned: Iterable[PlannedProcess]) -> None:
    """Reads every process's settings as the process will. Raises StartFailed with all that is
    wrong.
    """
    problems: dict[str, None] = {}
    for process in planned:
        try:
            load(SETTINGS[process.service], process.environment)
        except ConfigError as exc:
            problems |= dict.fromkeys(str(exc).splitlines())
    if problems:
        raise StartFailed("; ".join(problems))


def _unknown(environ: Mapping[str, str]) -> list[Misspelling]:
    fields = {field.upper() for settings in SETTINGS.values() for field in settings.model_fields}
    known = {*_OTHERS, *(field + suffix for field in fields for suffix in ("", "_FILE"))}
    found = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name != variable and name not in known:
            like = difflib.get_close_matches(name, sorted(known), 1, _LIKENESS)
            found.append(Misspelling(variable, PREFIX + like[0] if like else ""))
    return found
