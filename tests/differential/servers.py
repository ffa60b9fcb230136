"""The three servers with the conformance models: started, started anew when a request has ended
one, and stopped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import httpx

from benchmarks.processes import Child, free_port
from benchmarks.triton import TritonServer, start_triton
from benchmarks.venvs import MLSERVER
from stellwerk.conformance import Options
from stellwerk.conformance.models import mlserver, triton
from stellwerk.conformance.prepare import prepare
from tests.journey.stack import Platform

_READY_SECONDS = 90


class Server(Protocol):
    """A server that can be tested; `name` is also that of its report."""

    name: str

    def options(self) -> Options:
        """Where it is now."""

    def start(self) -> None:
        """Starts it, or starts it anew."""

    def stop(self) -> None:
        """Ends it."""


class Running:
    """Keeps a server up for a `with` block."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.stop()


class Triton:
    """Models may be loaded and unloaded, as the repository extension is about that."""

    name = "triton"

    def __init__(self, folder: Path) -> None:
        self._folder, self._starts = folder, 0
        self._server: TritonServer | None = None
        triton.write(folder / "models")

    def options(self) -> Options:
        assert self._server is not None
        return Options(self._server.http, self._server.grpc)

    def start(self) -> None:
        self.stop()
        self._starts += 1
        log = self._folder / f"log-{self._starts}"
        self._server = start_triton(
            self._folder / "models", log, ("--model-control-mode=explicit", "--load-model=*")
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = None


class MLServer:
    """As `mlserver start` serves a folder, without its pool of processes."""

    name = "mlserver"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: Child | None = None
        MLSERVER.ensure()
        mlserver.write(folder)
        self._http, self._grpc = free_port(), free_port()

    def options(self) -> Options:
        return Options(f"http://127.0.0.1:{self._http}", f"127.0.0.1:{self._grpc}")

    def start(self) -> None:
        self.stop()
        ports = {"http_port": self._http, "grpc_port": self._grpc, "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "debug": False, "parallel_workers": 0, **ports}
        (self._folder / "settings.json").write_text(json.dumps(settings))
        command = [str(MLSERVER.bin / "mlserver"), "start", str(self._folder)]
        self._child = Child(command, self._folder / "log", cwd=self._folder)
        self._child.wait_until(self._ready, _READY_SECONDS)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.options().url}/v2/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


class Stellwerk:
    """The whole platform on its embedded broker, with one runtime."""

    name = "stellwerk"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._platform: Platform | None = None

    def options(self) -> Options:
        assert self._platform is not None
        return Options(self._platform.http, self._platform.grpc, self._platform.token)

    def start(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        # The decoupled model is a pickle.
        settings = {"STELLWERK_ALLOW_UNSAFE_FORMATS": "true"}
        self._platform = Platform(self._folder, broker="pull", runtimes=1, settings=settings)
        prepare(self._platform.http, self._platform.token, pickles=True)

    def stop(self) -> None:
        if self._platform is not None:
            self._platform.stop()
        self._platform = None
