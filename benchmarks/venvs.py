"""Virtual environments under `.venv-peers`: for other servers, whose dependencies conflict with
ours, for charts and for profiles.

`python -m benchmarks.venvs` makes all of them; a run makes what it needs.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".venv-peers"

FIT = """
import sys
from joblib import dump
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), sys.argv[1])
"""


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


@dataclass(frozen=True, slots=True)
class Venv:
    """A virtual environment: pinned requirements, and those that are installed without what they
    ask for.
    """

    name: str
    requirements: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()
    parent: Path = FOLDER

    @property
    def folder(self) -> Path:
        """Where it is, whether made or not."""
        return self.parent / self.name

    @property
    def bin(self) -> Path:
        """Its commands."""
        return self.folder / "bin"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return self.folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"

    @property
    def versions(self) -> Mapping[str, str]:
        """What was pinned."""
        return dict(pin.split("==") for pin in self._pins())

    def ensure(self, run: Callable[[list[str]], object] = _run) -> None:
        """Makes it unless it is there and complete; a minute or two, some 300 MB."""
        complete, pins = self.folder / "complete", "\n".join(self._pins())
        if complete.is_file() and complete.read_text() == pins:
            return
        print(
            f"installing {', '.join(self._pins())} into {self.parent.name}/{self.name}",
            file=sys.stderr,
        )
        pip = [str(self.bin / "python"), "-m", "pip", "install", "--quiet"]
        run([sys.executable, "-m", "venv", str(self.folder)])
        run([*pip, *self.requirements])
        if self.without_dependencies:
            run([*pip, "--no-deps", *self.without_dependencies])
        complete.write_text(pins)

    def fit_iris(self, path: Path) -> None:
        """Fits the model of every peer with its own scikit-learn and writes it to `path` with
        joblib.
        """
        _run([str(self.bin / "python"), "-c", FIT, str(path)])

    def _pins(self) -> list[str]:
        return [*self.requirements, *self.without_dependencies]


def _same(*packages: str) -> tuple[str, ...]:
    """The versions of these packages that ours has, so that all do the same work."""
    return tuple(f"{package}=={version(package)}" for package in packages)


# MLServer 1.7.1 does not start on newer uvloop.
MLSERVER = Venv(
    "mlserver",
    (
        "mlserver==1.7.1",
        "mlserver-sklearn==1.7.1",
        "uvloop==0.21.0",
        *_same("scikit-learn", "numpy"),
    ),
)
# The wheel carries Triton's server, which needs none of the package's Python; its Python backend is
# built for numpy 1.
TRITON = Venv("triton", (*_same("scikit-learn"), "numpy==1.26.4"), ("nvidia-pytriton==0.7.0",))

# Draws the charts; nothing else needs it.
CHARTS = Venv("charts", ("matplotlib==3.11.2",))

# Samples the stacks of services, native frames included.
PROFILER = Venv("profiler", ("py-spy==0.4.3",))


if __name__ == "__main__":
    for venv in (MLSERVER, TRITON, CHARTS, PROFILER):
        venv.ensure()
