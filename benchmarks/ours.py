"""Stellwerk as a system under test: started by `stellwerk up`, its models stored with its own
SDK.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measurement import GrpcCall, RestCall
from benchmarks.processes import Child, descendants, free_port
from benchmarks.work import FLOWER, infer_body, infer_message, is_setosa
from stellwerk.client import connect

LOADS_METRIC = "stellwerk_model_loads_total"


@dataclass(frozen=True, slots=True)
class Input:
    """What a model calls its one input, and its type."""

    name: str
    datatype: str


@dataclass(frozen=True, slots=True)
class Installation:
    """Where a platform is installed: its command, working directory and environment."""

    command: Sequence[str]
    folder: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


# The platform that this program belongs to.
HERE = Installation([str(Path(sys.executable).parent / "stellwerk")])


class Stellwerk:
    """The whole platform with one runtime: five processes, a mongod and a broker of its own."""

    name = "Stellwerk"

    def __init__(
        self,
        broker: str = "auto",
        log_level: str = "warning",
        env: Mapping[str, str] | None = None,
        installation: Installation = HERE,
    ) -> None:
        """Starts the platform of an installation and waits until it is ready.

        `env` is added to the environment of its services.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="stellwerk-bench-")
        folder = Path(self._directory.name)
        self.http_port, self.grpc_port = free_port(), free_port()
        command = [*installation.command, "up", "--broker", broker, "--runtimes", "1"]
        command += ["--data-dir", str(folder / "data"), "--log-level", log_level]
        command += ["--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port)]
        self._child = Child(
            command,
            folder / "log",
            cwd=installation.folder,
            speaks=True,
            env={**installation.env, **(env or {})},
        )
        try:
            self.ready: dict[str, Any] = json.loads(self._child.first_line())
        except BaseException:
            self._child.stop()
            self._directory.cleanup()
            raise
        self.versions: Mapping[str, str] = {
            "broker": self.ready["broker"],
            "mongo": self.ready.get("mongo", ""),
        }
        self.client = connect(self.ready["http"], token=self._token(), timeout=120)

    def store(self, model: Any, name: str) -> Input:
        """Stores a model; returns what it takes, as the Open Inference Protocol tells it."""
        self.client.models.put(model, name)
        return self.input_of(name)

    def input_of(self, name: str) -> Input:
        """The one input of a model that is stored."""
        answer = httpx.get(
            f"{self.ready['http']}/v2/models/{name}", headers=self.authorization(), timeout=60
        )
        answer.raise_for_status()
        tensor = answer.json()["inputs"][0]
        return Input(tensor["name"], tensor["datatype"])

    def rest(self, model: str, body: bytes) -> RestCall:
        """A prediction of one flower."""
        url = f"{self.ready['http']}/v2/models/{model}/infer"
        return RestCall(
            url, body, {"Content-Type": "application/json", **self.authorization()}, is_setosa
        )

    def grpc(self, request: bytes) -> GrpcCall:
        """A call on the public gRPC port."""
        metadata = {"authorization": self.authorization()["Authorization"]}
        return GrpcCall(self.ready["grpc"].removeprefix("grpc://"), request, metadata)

    def model_loads(self, model: str) -> float:
        """How often runtimes have loaded versions of this model."""
        return sum(
            samples_sum(
                httpx.get(_metrics_url(address), timeout=10).text, LOADS_METRIC, f"/{model}/"
            )
            for process, address in self.ready["metrics"].items()
            if process.startswith("runtime")
        )

    def environment(self, process: str) -> Mapping[str, str]:
        """What one of its processes was told when it started."""
        environment: dict[str, str] = psutil.Process(self.ready["pids"][process]).environ()
        return environment

    def authorization(self) -> dict[str, str]:
        """Returns the header that an administrator signs in with."""
        return {"Authorization": f"Bearer {self._token()}"}

    def _token(self) -> str:
        """The administrator's token; the platform renews the file before the token in it
        expires.
        """
        return Path(self.ready["token_file"]).read_text().strip()

    def parts(self) -> Mapping[str, Sequence[int]]:
        """Its services, database and broker, each with its descendants, and what supervises
        them.
        """
        parts = {name: descendants(pid) for name, pid in self.ready["pids"].items() if pid}
        named = {pid for pids in parts.values() for pid in pids}
        return {**parts, "supervisor": [pid for pid in self._child.pids() if pid not in named]}

    def stop(self) -> None:
        self.client.close()
        self._child.stop()
        self._directory.cleanup()


@dataclass(frozen=True, slots=True)
class Named:
    """A platform under a name that tells it from the others of a run."""

    name: str
    platform: Stellwerk

    @property
    def versions(self) -> Mapping[str, str]:
        return self.platform.versions

    def parts(self) -> Mapping[str, Sequence[int]]:
        return self.platform.parts()

    def stop(self) -> None:
        self.platform.stop()


def _metrics_url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    return url if url.endswith("/metrics") else f"{url}/metrics"


def samples_sum(exposition: str, metric: str, part: str) -> float:
    """The sum of a metric's samples whose labels mention `part`, or that have none; from
    Prometheus's text format.
    """
    total = 0.0
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        labels = series.removeprefix(metric)
        if series.startswith(metric) and (
            labels == "" or (labels.startswith("{") and part in labels)
        ):
            total += float(value)
    return total


def flower_calls(model: str, tensor: Input) -> tuple[bytes, bytes]:
    """The JSON body and the gRPC message of one flower, as the model wants it."""
    return infer_body(tensor.name, tensor.datatype, [FLOWER]), infer_message(
        model, tensor.name, tensor.datatype
    )
