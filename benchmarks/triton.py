"""Triton Inference Server: C++ in front, Python models in processes of their own behind shared
memory.

The server binary and its Python backend come from the wheel of nvidia-pytriton; none of that
package's Python is used. `start_triton` serves any model repository; `Triton` is the system that
the figures measure.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.measurement import GrpcCall, RestCall
from benchmarks.processes import Child, free_port
from benchmarks.venvs import TRITON
from benchmarks.work import FLOWER, infer_body, is_setosa

HOME = TRITON.packages / "pytriton" / "tritonserver"
SHARED_MEMORY = Path("/dev/shm")
READY_SECONDS = 60
MODEL = "iris"
# One per core of the machine of the results; one alone served a fifth less at 256 connections.
INSTANCES = 2

IRIS = """
import numpy as np
import triton_python_backend_utils as pb_utils
from joblib import load
from pathlib import Path


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.model = load(folder / "model.joblib")

    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        inputs = [tensor.as_numpy() for tensor in tensors]
        labels = self.model.predict(np.concatenate(inputs)).astype(np.int64).reshape(-1, 1)
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("predict", part)])
            for part in np.split(labels, ends)
        ]
"""
IRIS_CONFIG = """
max_batch_size: 256
input [{ name: "X", data_type: TYPE_FP64, dims: [4] }]
output [{ name: "predict", data_type: TYPE_INT64, dims: [1] }]
dynamic_batching {}
"""


def write_model(repository: Path, name: str, config: str, source: str, instances: int = 1) -> Path:
    """Adds a model of the Python backend: config.pbtxt with this text added, 1/model.py; returns
    the version's folder.

    `config` holds everything but name, backend and instance group.
    """
    version = repository / name / "1"
    version.mkdir(parents=True)
    head = (
        f'name: "{name}"\nbackend: "python"\ninstance_group [{{ kind: KIND_CPU, count: {instances}'
        " }]\n"
    )
    (version.parent / "config.pbtxt").write_text(head + config)
    (version / "model.py").write_text(source)
    return version


class TritonServer:
    """A running tritonserver on ports of 127.0.0.1. `http` is a URL, `grpc` and `metrics` are
    host:port.
    """

    def __init__(self, repository: Path, log: Path, options: Sequence[str] = ()) -> None:
        TRITON.ensure()
        # A prefix of its own for the shared memory of the Python backend, so that two servers never
        # meet.
        self._prefix = f"triton_{uuid.uuid4().hex[:12]}_"
        self.http_port, self.grpc_port, self.metrics_port = free_port(), free_port(), free_port()
        self.http = f"http://127.0.0.1:{self.http_port}"
        self.grpc, self.metrics = f"127.0.0.1:{self.grpc_port}", f"127.0.0.1:{self.metrics_port}"
        self._backends = tempfile.TemporaryDirectory(prefix="triton-backends-")
        _python_backend(Path(self._backends.name))
        self._child = Child([*self._command(repository), *options], log, env=_environment())
        try:
            self._child.wait_until(self._ready, READY_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _command(self, repository: Path) -> list[str]:
        ports = {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}
        return [
            str(HOME / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={self._backends.name}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            *(f"--{kind}-port={port}" for kind, port in ports.items()),
            *(f"--{kind}-address=127.0.0.1" for kind in ports),
            "--log-info=false",
            "--exit-timeout-secs=5",
        ]

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.http}/v2/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def version(self) -> str:
        """What the server says its version is."""
        return str(httpx.get(f"{self.http}/v2", timeout=5).json()["version"])

    def parts(self) -> Mapping[str, Sequence[int]]:
        """The server, and the processes of its models."""
        server, *models = self._child.pids()
        return {"tritonserver": [server], "models": models}

    def stop(self) -> None:
        """Ends the server and its models, and removes the shared memory that a killed one leaves
        behind.
        """
        self._child.stop()
        for region in SHARED_MEMORY.glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)
        self._backends.cleanup()


def start_triton(repository: Path, log: Path, options: Sequence[str] = ()) -> TritonServer:
    """Serves a model repository; installs the server when first needed.

    `options` are further arguments, such as `--model-control-mode=explicit`. Raises NotReady with
    the end of the log when the server does not get ready within a minute.
    """
    return TritonServer(repository, log, options)


def _python_backend(folder: Path) -> None:
    """The Python backend with the stub of this Python: the server looks for both in one folder."""
    (folder / "python").mkdir()
    stub = (
        HOME
        / "python_backend_stubs"
        / sysconfig.get_python_version()
        / "triton_python_backend_stub"
    )
    for file in [stub, *(HOME / "backends" / "python").iterdir()]:
        target = folder / "python" / file.name
        # The binaries find their libraries relative to where they really are.
        if file.suffix == ".py":
            shutil.copy(file, target)
        else:
            target.symlink_to(file)


def _environment() -> dict[str, str]:
    """What the embedded Python of a model's process needs: its library, and the packages of the
    virtual environment.
    """
    return {
        "PATH": os.pathsep.join([str(TRITON.bin), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join(
            [str(TRITON.packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        ),
        "PYTHONPATH": str(TRITON.packages),
    }


class Triton:
    """Triton serving scikit-learn's LogisticRegression on iris with dynamic batching. It
    authenticates nobody.
    """

    name = "Triton"

    def __init__(self, instances: int = INSTANCES) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="triton-bench-")
        folder = Path(self._directory.name)
        TRITON.ensure()
        version = write_model(folder / "models", MODEL, IRIS_CONFIG, IRIS, instances)
        TRITON.fit_iris(version / "model.joblib")
        self._server = start_triton(folder / "models", folder / "log")
        self.versions: Mapping[str, str] = {
            "tritonserver": self._server.version,
            "instances": str(instances),
            **TRITON.versions,
        }

    def rest(self) -> RestCall:
        """A prediction of one flower."""
        url, body = (
            f"{self._server.http}/v2/models/{MODEL}/infer",
            infer_body("X", "FP64", [FLOWER]),
        )
        return RestCall(url, body, {"Content-Type": "application/json"}, is_setosa)

    def grpc(self, request: bytes) -> GrpcCall:
        """A call on its gRPC port."""
        return GrpcCall(self._server.grpc, request, {})

    def parts(self) -> Mapping[str, Sequence[int]]:
        """The server, and the processes of its models."""
        return self._server.parts()

    def stop(self) -> None:
        self._server.stop()
        self._directory.cleanup()
