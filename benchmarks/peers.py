"""Other servers in Python that do the same work. Triton has a module of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.measurement import RestCall
from benchmarks.processes import Child, free_port
from benchmarks.venvs import MLSERVER
from benchmarks.work import is_setosa

READY_SECONDS = 90


class MLServer:
    """MLServer serving scikit-learn's LogisticRegression on iris. It authenticates nobody.

    Without its pool of worker processes, which costs it 40 % of its throughput on two cores.
    """

    name = "MLServer"

    def __init__(self) -> None:
        MLSERVER.ensure()
        self.versions: Mapping[str, str] = MLSERVER.versions
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._write(folder, port)
        self._child = Child(
            [str(MLSERVER.bin / "mlserver"), "start", str(folder)], folder / "log", cwd=folder
        )
        try:
            self._child.wait_until(self._ready, READY_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _write(self, folder: Path, port: int) -> None:
        model = {
            "name": "iris",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(folder / "model.joblib"), "version": "1"},
        }
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "debug": False, "parallel_workers": 0, **ports}
        (folder / "model-settings.json").write_text(json.dumps(model))
        (folder / "settings.json").write_text(json.dumps(settings))
        MLSERVER.fit_iris(folder / "model.joblib")

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/v2/models/iris/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def rest(self, body: bytes) -> RestCall:
        """A prediction of one flower."""
        headers = {"Content-Type": "application/json"}
        return RestCall(f"{self._url}/v2/models/iris/infer", body, headers, is_setosa)

    def parts(self) -> Mapping[str, Sequence[int]]:
        """All of its processes."""
        return {self.name: self._child.pids()}

    def stop(self) -> None:
        self._child.stop()
        self._directory.cleanup()
