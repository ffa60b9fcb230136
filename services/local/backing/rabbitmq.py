"""Runs a private RabbitMQ node as a child process: own cookie, own epmd, own user, loopback only,
under any account. Tries a RabbitMQ that the user names.

Uses the installed server's own scripts, not the wrappers in /usr/sbin that change the user and drop
the environment.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pika
from pika import exceptions

from services.local.errors import StartFailed
from services.local.plan import place
from services.local.ports import free_port
from services.local.processes.child import Child

_SCRIPT_DIRECTORIES = (
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)
_USER = "stellwerk"
_NODE = "stellwerk@localhost"
_NO_SUCH_COMMAND = 64  # an exit status of rabbitmqctl
_START_SECONDS = 90.0
# A RabbitMQ that the user names runs already: a server on another continent answers within 1 s.
_TRY_SECONDS = 3.0
_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
loopback_users.1 = {user}
vm_memory_high_watermark.absolute = {memory_mb}MB
disk_free_limit.absolute = 100MB
log.console = true
log.console.level = info
log.file = false
"""


def scripts() -> Path | None:
    """Returns the directory of rabbitmq-server and rabbitmqctl, None if this machine has none."""
    for directory in map(Path, _SCRIPT_DIRECTORIES):
        if (directory / "rabbitmq-server").exists():
            return directory
    on_path = shutil.which("rabbitmq-server")
    return (
        Path(on_path).resolve().parent if on_path and not on_path.startswith("/usr/sbin") else None
    )


def installed() -> bool:
    """Returns whether `RabbitMQ` can start a node on this machine."""
    return scripts() is not None and _epmd() is not None


def try_server(url: str) -> None:
    """Connects to the RabbitMQ at `url` as our services will.

    Raises StartFailed within seconds if it does not answer or refuses the user. Blocking.
    """
    # pika logs each failure with a traceback; the sentence raised here says it all.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = _TRY_SECONDS
        parameters.connection_attempts = 1
        pika.BlockingConnection(parameters).close()
    except (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError):
        problem = f"RabbitMQ at {place(url)} refuses the user or the password; correct --broker"
    except (exceptions.ConnectionClosedByBroker, exceptions.ProbableAccessDeniedError) as exc:
        # pika's text is "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - …'".
        reply = str(exc).partition(") ")[2].strip("'") or str(exc)
        problem = f"RabbitMQ at {place(url)} refuses us ({reply}); correct --broker"
    except (exceptions.AMQPError, OSError, ValueError) as exc:
        problem = (
            f"no RabbitMQ answers at {place(url)} ({_cause(exc)}); start it, or correct --broker"
        )
    else:
        return
    raise StartFailed(problem)


def _cause(exc: BaseException) -> str:
    """Returns the innermost reason of pika's nested errors."""
    for inner in (*getattr(exc, "args", ()), getattr(exc, "exception", None)):
        if isinstance(inner, BaseException):
            return _cause(inner)
    text = getattr(exc, "strerror", None) or str(exc)
    return text or type(exc).__name__


def _epmd() -> Path | None:
    on_path = shutil.which("epmd")
    if on_path:
        return Path(on_path)
    erlang = shutil.which("erl")
    beside = Path(erlang).resolve().parent / "epmd" if erlang else None
    return beside if beside and beside.exists() else None


class RabbitMQ:
    """A node with all its files in `directory`.

    Its methods block: call them from a thread where an event loop runs.
    """

    def __init__(self, directory: Path, *, port: int = 0, memory_mb: int = 512) -> None:
        self.directory = directory
        self.port = port
        self.version = ""
        self._memory_mb = memory_mb
        self._epmd_port = 0
        self._dist_port = 0
        self._password = ""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # There from the first start until the node has booted once.
        self._first_start = directory / "first-start"
        self._node = Child("rabbitmq", directory)
        self._epmd = Child("epmd", directory)

    @property
    def url(self) -> str:
        """The address for clients, with user and password."""
        return f"amqp://{_USER}:{self._password}@127.0.0.1:{self.port}/%2F"

    @property
    def pid(self) -> int | None:
        """The process id, None while the node does not run."""
        return self._node.pid

    def start(self) -> None:
        """Starts the node and waits until it takes connections. Raises StartFailed."""
        bin_directory, epmd = scripts(), _epmd()
        if bin_directory is None or epmd is None:
            raise StartFailed(
                "RabbitMQ is not installed here; apt-get install rabbitmq-server brings it"
            )
        self.prepare()
        self._clear_half_made()
        try:
            # epmd runs in the foreground under our own warden; one that the node started itself
            # would outlive it.
            self._epmd.start(
                [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"], self._environment()
            )
            self._epmd.wait_until(lambda: _listens(self._epmd_port), 10)
            self._node.start([bin_directory / "rabbitmq-server"], self._environment())
            self._node.wait_until(self._greets, _START_SECONDS)
        except StartFailed:
            # A node that boots takes SIGTERM only when it has booted.
            if self._node.abandoned:
                self.kill()
            else:
                self.stop()
            raise
        self._first_start.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Lets a start that runs in another thread end soon, with StartFailed."""
        self._epmd.abandoned = True
        self._node.abandoned = True

    def stop(self) -> None:
        """Ends the node and its epmd."""
        self._node.stop()
        self._epmd.stop()

    def kill(self) -> None:
        """Ends the node as a crash would; `start` brings it back on the same port with its
        durable state.
        """
        self._node.kill()
        self._epmd.stop()

    def ctl(self, *arguments: str) -> str:
        """Runs rabbitmqctl against the node and returns its output. Raises RuntimeError."""
        command = [str((scripts() or Path()) / "rabbitmqctl"), "-n", _NODE, "-q", *arguments]
        # Its first start on a machine under load has missed a command of its own.
        for _ in range(2):
            done = subprocess.run(
                command,
                env=self._environment(),
                cwd=self.directory,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode != _NO_SUCH_COMMAND:
                break
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def prepare(self) -> None:
        """Settles ports, password and configuration, so that `url` holds before the node
        runs.
        """
        self.port = self.port or free_port()
        self._epmd_port = self._epmd_port or free_port()
        self._dist_port = self._dist_port or free_port()
        for name in ("home", "mnesia", "log"):
            (self.directory / name).mkdir(exist_ok=True)
        cookie = self.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(20))
            cookie.chmod(0o400)
        password = self.directory / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(secrets.token_hex(24))
        self._password = password.read_text()
        config = self.directory / "rabbitmq.conf"
        config.touch(mode=0o600)
        config.write_text(
            _CONFIG.format(
                port=self.port, user=_USER, password=self._password, memory_mb=self._memory_mb
            )
        )
        (self.directory / "enabled_plugins").write_text("[].\n")

    def _clear_half_made(self) -> None:
        """Removes the database of a node whose first boot was cut short, which may not boot."""
        database = self.directory / "mnesia"
        if self._first_start.exists():
            shutil.rmtree(database)
            database.mkdir()
        elif not any(database.iterdir()):
            self._first_start.touch()

    def _environment(self) -> dict[str, str]:
        base = self.directory
        # One scheduler that sleeps when idle. With two, connections, channels and queues wake each
        # other across cores for each message: twice the CPU, and a third less throughput.
        erl = (
            "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface"
            " {127,0,0,1}"
        )
        return {
            "PATH": (
                os.defpath + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/opt/homebrew/bin"
            ),
            "LANG": "C.UTF-8",
            "HOME": str(base / "home"),
            # Makes the script become the node instead of waiting for it: the pid we hold is the
            # node's.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(base / "erl_crash.dump"),
            "RABBITMQ_BASE": str(base),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(base / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "generated"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(base / "feature_flags"),
            "RABBITMQ_PID_FILE": str(base / "pid"),
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erl,
        }

    def _greets(self) -> bool:
        """Returns whether the node answers an AMQP client; notes the version in its greeting."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                greeting = connection.recv(4096)
        except OSError:
            return False
        if greeting[:1] != b"\x01":
            return False
        # A field table entry: name, "S" for a long string, its length, its bytes.
        at = greeting.find(b"\x07versionS")
        if at >= 0:
            (length,) = struct.unpack_from(">I", greeting, at + 9)
            self.version = greeting[at + 13 : at + 13 + length].decode()
        return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
