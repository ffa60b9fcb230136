"""Other servers that do the same work, each in a virtual environment of its own because their dependencies conflict.

`python -m benchmarks.peers install` makes `.venv-peers`; a run makes it on demand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import httpx

from benchmarks.measurement import RestCall
from benchmarks.processes import Child, free_port
from benchmarks.work import is_setosa

VENV = Path(__file__).resolve().parent.parent / ".venv-peers"
# scikit-learn and numpy as ours has them, so that both do the same work; MLServer 1.7.1 does not start on newer uvloop.
REQUIREMENTS = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop==0.21.0")
SHARED = ("scikit-learn", "numpy")
READY_SECONDS = 90

FIT = """
import sys
from joblib import dump
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), sys.argv[1])
"""


def installed() -> bool:
    """Whether the virtual environment is there and complete."""
    return (VENV / "complete").is_file() and (VENV / "complete").read_text() == "\n".join(_pins())


def install() -> None:
    """Makes the virtual environment; some 300 MB, a minute or two."""
    print(f"installing {', '.join(REQUIREMENTS)} into {VENV.name}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    subprocess.run([str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", *_pins()], check=True)
    (VENV / "complete").write_text("\n".join(_pins()))


def _pins() -> list[str]:
    return [*REQUIREMENTS, *(f"{name}=={version(name)}" for name in SHARED)]


class MLServer:
    """MLServer serving scikit-learn's LogisticRegression on iris. It authenticates nobody.

    Without its pool of worker processes, which costs it 40 % of its throughput on two cores.
    """

    name = "MLServer"

    def __init__(self) -> None:
        if not installed():
            install()
        self.versions: Mapping[str, str] = dict(pin.split("==") for pin in _pins())
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._write(folder, port)
        self._child = Child([str(VENV / "bin" / "mlserver"), "start", str(folder)], folder / "log", cwd=folder)
        self._child.wait_until(self._ready, READY_SECONDS)

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
        subprocess.run([str(VENV / "bin" / "python"), "-c", FIT, str(folder / "model.joblib")], check=True)

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


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        raise SystemExit("usage: python -m benchmarks.peers install")
    install()
