"""Defines the commands `stellwerk up` and `stellwerk local init-secrets`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from services.chassis.config import check_otel_endpoint
from services.local import ports
from services.local.data_directory import absolute_path
from services.local.errors import StartFailed
from services.local.plan import Options, address
from services.local.preflight import check_variables
from services.local.processes.logs import Logs
from services.local.ready_report import ReadyReport
from services.local.secrets import Secrets
from services.local.supervisor import Supervisor


def _user_data_dir() -> str:
    """Returns the default data directory, "" if this account has no home directory."""
    try:
        found = platformdirs.user_data_dir("stellwerk")
    except RuntimeError:
        return ""
    return "" if found.startswith("~") else found


app = typer.Typer(
    no_args_is_help=True,
    help="Runs the platform on this machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LEVELS = ("debug", "info", "warning", "error")


@app.command()
def up(
    runtimes: Annotated[int, typer.Option(min=1, max=64, help="How many runtimes to start.")] = 1,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the REST API.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gRPC API.")] = 8081,
    host: Annotated[str, typer.Option(help="Address that both APIs listen on.")] = "127.0.0.1",
    data_dir: Annotated[
        str,
        typer.Option(
            envvar="STELLWERK_DATA_DIR",
            help="Directory of the database, secrets, artifacts and logs.",
        ),
    ] = _user_data_dir(),
    broker: Annotated[
        str,
        typer.Option(
            envvar="STELLWERK_BROKER",
            help=(
                "amqp://… for a RabbitMQ that runs, pull for the built-in dispatch, auto for a"
                " private RabbitMQ node if the server is installed and pull if not."
            ),
        ),
    ] = "auto",
    mongo_url: Annotated[
        str,
        typer.Option(
            envvar="STELLWERK_MONGO_URL", help="A MongoDB to use, which must be a replica set."
        ),
    ] = "",
    metrics_port: Annotated[
        int,
        typer.Option(min=0, max=65000, help="First port for Prometheus metrics, 0 for free ones."),
    ] = 0,
    otel_endpoint: Annotated[
        str,
        typer.Option(
            envvar="STELLWERK_OTEL_ENDPOINT",
            help="OTLP/gRPC collector for traces, such as http://host:4317.",
        ),
    ] = "",
    log_level: Annotated[
        str,
        typer.Option(envvar="STELLWERK_LOG_LEVEL", help="debug, info, warning or error."),
    ] = "info",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all logs, not only errors.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Report in JSON, as to a program, also on a terminal.")
    ] = False,
) -> None:
    """Starts the whole platform on this machine and keeps it up until Ctrl-C.

    When it is ready, a terminal gets addresses and first commands; a program that reads standard
    output gets one line of JSON. Logs are kept in the data directory, one file for each process.
    """
    try:
        check_otel_endpoint(otel_endpoint)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--otel-endpoint") from None
    if broker not in ("auto", "pull") and not broker.startswith(("amqp://", "amqps://")):
        raise typer.BadParameter("is auto, pull or an amqp:// URL", param_hint="--broker")
    if log_level not in _LEVELS:
        raise typer.BadParameter(f"is one of {', '.join(_LEVELS)}", param_hint="--log-level")
    for stream in (sys.stdout, sys.stderr):
        # The locale's encoding may lack a character of a path or a log line.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    logs = Logs(sys.stderr, terminal=sys.stderr.isatty(), verbose=verbose)
    try:
        options = Options(
            data_dir=absolute_path(data_dir, _user_data_dir()),
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            runtimes=runtimes,
            broker=broker,
            mongo_url=mongo_url,
            otel_endpoint=otel_endpoint,
            log_level=log_level,
        )
        _advise(logs)
        code = asyncio.run(_run(options, logs, as_json=as_json))
    except (StartFailed, OSError) as exc:
        logs.progress("")
        typer.echo(f"stellwerk: {exc}", err=True)
        code = 1
    raise typer.Exit(code)


@app.command("init-secrets")
def init_secrets(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")],
    containers: Annotated[
        bool,
        typer.Option(
            "--containers", help="Also what compose.yaml mounts into RabbitMQ and MongoDB."
        ),
    ] = False,
) -> None:
    """Writes the secrets by which the services know each other; secrets that exist are kept."""
    secrets = Secrets(directory)
    written = secrets.create()
    if containers:
        written += secrets.create_for_containers()
    for path in written:
        typer.echo(f"wrote {path}")
    if not written:
        typer.echo(f"{directory} is complete, nothing was changed")


def up_command(words: list[str]) -> None:
    """Runs `stellwerk up` with the words after it; the SDK finds this as an entry point."""
    app(args=["up", *words], prog_name="stellwerk")


def local_command(words: list[str]) -> None:
    """Runs `stellwerk local …` with the words after it; the SDK finds this as an entry point."""
    app(args=words, prog_name="stellwerk local")


def _advise(logs: Logs) -> None:
    """Tells the user of variables that have no effect. Raises StartFailed for a misspelt one."""
    for variable in check_variables(os.environ):
        logs.say(
            "unknown_variable",
            f"{variable} is no setting of the platform and has no effect",
            level="warning",
            variable=variable,
        )


async def _run(options: Options, logs: Logs, *, as_json: bool) -> int:
    """Brings the platform up, waits for a signal, takes it down; returns the exit code."""
    began = time.monotonic()
    supervisor = Supervisor(options, os.environ, logs)
    asked = asyncio.Event()
    _on_signals(asked, supervisor, logs)
    start = asyncio.create_task(supervisor.start())
    wait = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({start, wait}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            _announce(start.result(), options, logs, time.monotonic() - began, as_json)
            await wait
    finally:
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError, StartFailed, OSError):
            await start
        logs.progress("")
        wait.cancel()
        await supervisor.stop()
    return 0


def _on_signals(asked: asyncio.Event, supervisor: Supervisor, logs: Logs) -> None:
    """Stops in order at the first signal, and at once at the second."""

    def handle() -> None:
        if asked.is_set():
            supervisor.kill()
            os._exit(130)
        logs.progress("")
        again = "; Ctrl-C again ends everything at once" if sys.stderr.isatty() else ""
        logs.say("signal", f"stopping …{again}")
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)


def _announce(
    report: ReadyReport, options: Options, logs: Logs, seconds: float, as_json: bool
) -> None:
    """Prints the report: JSON for a program that reads standard output, a card for a person."""
    logs.progress("")
    network = "" if ports.is_loopback(options.host) else _network(options)
    for_program = as_json or not sys.stdout.isatty()
    if network:
        # A person reads it in the card.
        sentence = f"the platform is {network}" if for_program else ""
        logs.say("public_address", sentence, level="warning", host=options.host)
    directory = options.data_dir / "logs"
    # `make up` runs the command by its path, and then the user must type the path too.
    program = sys.argv[0] if Path(sys.argv[0]).name == "stellwerk" else "stellwerk"
    command = "stellwerk" if shutil.which("stellwerk") else program
    if str(options.data_dir) != _user_data_dir():
        command += f" --data-dir {shlex.quote(str(options.data_dir))}"
    card = report.as_card(command, directory, seconds, network)
    print(report.as_json() if for_program else card, flush=True)
    if not for_program or as_json:
        return
    if sys.stderr.isatty():
        print(card, file=sys.stderr, flush=True)
    else:
        logs.say(
            "ready",
            f"the platform is ready after {seconds:.1f} s: {report.http}; logs are in {directory}",
            seconds=round(seconds, 1),
            http=report.http,
        )


def _network(options: Options) -> str:
    """Returns how other machines reach the platform, and what does not protect it."""
    host = ports.outside_address(options.host)
    rest = f"http://{address(host, options.http_port)}"
    grpc = address(host, options.grpc_port)
    # Services that have certificates serve gRPC with TLS; REST is left to a proxy.
    if any(name.startswith("STELLWERK_TLS_CERTIFICATE") for name in os.environ):
        return f"open to the network: {rest} without TLS (put a proxy in front), {grpc} with TLS"
    return f"open to the network without TLS (put a proxy in front): {rest}, {grpc}"
