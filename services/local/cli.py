"""The commands that run the platform on this machine: `stellwerk up` and `stellwerk local
init-secrets`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from services.local import container_secrets
from services.local.lock import AlreadyRunning
from services.local.plan import Options
from services.local.ports import PortTaken
from services.local.processes.child import StartFailed
from services.local.processes.logs import LogStream
from services.local.processes.supervisor import NeverReady, Supervisor
from services.local.secrets import Secrets

app = typer.Typer(no_args_is_help=True, help="Runs the platform on this machine.")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LEVELS = ("debug", "info", "warning", "error")


@app.command()
def up(
    runtimes: Annotated[int, typer.Option(min=1, max=64, help="How many runtimes to start.")] = 1,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the REST API.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gRPC API.")] = 8081,
    host: Annotated[str, typer.Option(help="Address that both APIs listen on.")] = "127.0.0.1",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="STELLWERK_DATA_DIR",
            help="Where everything is kept. [default: the user's data folder]",
        ),
    ] = None,
    broker: Annotated[
        str,
        typer.Option(
            envvar="STELLWERK_BROKER",
            help=(
                "amqp://… for a RabbitMQ that runs, pull for the built-in dispatch, auto for a"
                " private RabbitMQ node "
                "if the server is installed and pull if not."
            ),
        ),
    ] = "auto",
    mongo_url: Annotated[
        str, typer.Option(envvar="STELLWERK_MONGO_URL", help="A MongoDB to use.")
    ] = "",
    metrics_port: Annotated[
        int,
        typer.Option(min=0, max=65000, help="First port for Prometheus metrics, 0 for free ones."),
    ] = 0,
    otel_endpoint: Annotated[
        str, typer.Option(help="OTLP/gRPC collector for traces, such as http://host:4317.")
    ] = "",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Start the whole platform here and keep it up until Ctrl-C.

    Prints one line of JSON when it is ready: addresses, the file that holds an administrator's
    token, process ids. Logs go to standard error.
    """
    if broker not in ("auto", "pull") and not broker.startswith(("amqp://", "amqps://")):
        raise typer.BadParameter("is auto, pull or an amqp:// URL", param_hint="--broker")
    if log_level not in _LEVELS:
        raise typer.BadParameter(f"is one of {', '.join(_LEVELS)}", param_hint="--log-level")
    directory = (data_dir or Path(platformdirs.user_data_dir("stellwerk"))).expanduser().absolute()
    options = Options(
        data_dir=directory,
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
    logs = LogStream(sys.stderr, terminal=sys.stderr.isatty())
    if host not in _LOOPBACK:
        logs.say(
            "public_address", host=host, advice="traffic is not encrypted; put a TLS proxy in front"
        )
    raise typer.Exit(asyncio.run(_run(options, logs)))


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
    """Write the secrets that the services need to know each other; what exists is kept."""
    written = Secrets(directory).create()
    if containers:
        written += container_secrets.create(directory)
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


async def _run(options: Options, logs: LogStream) -> int:
    """Up, wait for a signal, down. The exit code."""
    supervisor = Supervisor(options, os.environ, logs)
    asked = asyncio.Event()
    _on_signals(asked, supervisor)
    start = asyncio.create_task(supervisor.start(_announce))
    wait = asyncio.create_task(asked.wait())
    code = 0
    try:
        await asyncio.wait({start, wait}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await asked.wait()
    except (PortTaken, AlreadyRunning, StartFailed, NeverReady) as exc:
        typer.echo(f"stellwerk: {exc}", err=True)
        code = 1
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    wait.cancel()
    await supervisor.stop()
    return code


def _on_signals(asked: asyncio.Event, supervisor: Supervisor) -> None:
    """The first signal stops in order, the second at once."""

    def handle() -> None:
        if asked.is_set():
            supervisor.kill()
            os._exit(130)
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)


def _announce(line: str) -> None:
    print(line, flush=True)
