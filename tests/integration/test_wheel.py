"""The two wheels: the SDK alone in an empty environment, and the platform beside it.

The empty environment is a virtual environment with links to the files of the packages that the
SDK's wheel requires, taken from the environment of this process: no package index is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MOST_PACKAGES = 20
SERVICES = """
import json
from services.api_gateway import main; from services.api_gateway.openapi import comments
from services.controlplane import main as controlplane
from services.repository import main as repository
from services.router import main as router
from services.runtime import main as runtime
from stellwerk.client import connect
from services.local import cli
print(json.dumps([main.__file__, len(comments.comments())]))
"""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both wheels, built as `make wheels` builds them."""
    target = tmp_path_factory.mktemp("wheels")
    build = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", target)
    subprocess.run([*build, ROOT / "sdk", ROOT], check=True)
    return target


@pytest.fixture(scope="module")
def sdk_environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the SDK's wheel, what that requires, and nothing else."""
    folder = tmp_path_factory.mktemp("sdk")
    venv.create(folder, with_pip=False)
    (wheel,) = wheels.glob("stellwerk-*.whl")
    pip = (*PIP, "--python", folder / "bin" / "python")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    site_packages = _site_packages(folder)
    (dist,) = metadata.distributions(name="stellwerk", path=[str(site_packages)])
    for required in _required(dist.requires or ()):
        _link(required, site_packages)
    return folder


@pytest.fixture(scope="module")
def platform_folder(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of both wheels; libraries come from this process's environment."""
    target = tmp_path_factory.mktemp("platform")
    install = (*PIP, "install", "--no-deps", "--no-index", "--target", target)
    subprocess.run([*install, *wheels.glob("*.whl")], check=True)
    return target


@pytest.fixture
def foreign_project(tmp_path: Path) -> Path:
    """A project that has packages of its own called `services` and `inference`."""
    for name in ("services", "inference"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = '{name}'\n")
    return tmp_path


def _site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def _required(requirements: Sequence[str]) -> Iterator[metadata.Distribution]:
    """Yields each package that these requirements bring, as installed for this process."""
    seen: set[str] = set()
    waiting = [*requirements]
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        dist = metadata.distribution(name)
        extras = [
            text
            for text in dist.requires or ()
            if (marker := Requirement(text).marker)
            and any(marker.evaluate({"extra": extra}) for extra in requirement.extras)
        ]
        waiting += extras
        if name not in seen:
            seen.add(name)
            waiting += dist.requires or ()
            yield dist


def _link(dist: metadata.Distribution, site_packages: Path) -> None:
    for file in dist.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            link = site_packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(dist.locate_file(file))


def _run(command: Sequence[str | Path], cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    """Runs a command without the variables that point Python elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _printed(command: Sequence[str | Path], cwd: Path, **environ: str) -> str:
    done = _run(command, cwd, **environ)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_the_sdk_holds_the_namespace_stellwerk_and_nothing_else(sdk_environment: Path) -> None:
    (dist,) = metadata.distributions(name="stellwerk", path=[str(_site_packages(sdk_environment))])

    files = [file for file in dist.files or () if "__pycache__" not in file.parts]

    tops = {file.parts[0] for file in files} - {"..", f"stellwerk-{dist.version}.dist-info"}
    assert tops == {"stellwerk"}
    assert {file.name for file in files if file.parts[0] == ".."} == {"stellwerk"}
    # Without an __init__.py, other packages may put their own parts under `stellwerk`.
    assert "stellwerk/__init__.py" not in map(str, files)


def test_the_sdk_brings_at_most_20_packages(sdk_environment: Path) -> None:
    site_packages = _site_packages(sdk_environment)
    found = {dist.name for dist in metadata.distributions(path=[str(site_packages)])}

    assert "numpy" in found
    assert len(found) <= MOST_PACKAGES, sorted(found)


def test_the_sdk_works_in_a_project_with_services_and_inference_of_its_own(
    sdk_environment: Path, foreign_project: Path
) -> None:
    code = (
        "import services, inference, stellwerk.client, stellwerk.conformance, numpy;"
        "from stellwerk.client.transport import http, grpc;"
        "print(services.MINE, inference.MINE, hasattr(stellwerk.client, 'connect'))"
    )

    said = _printed([sdk_environment / "bin" / "python", "-c", code], foreign_project)

    assert said == "services inference True\n"


def test_the_sdks_command_works_beside_such_a_project(
    sdk_environment: Path, foreign_project: Path
) -> None:
    command = [sdk_environment / "bin" / "stellwerk", "--help"]

    shown = " ".join(_printed(command, foreign_project).split())

    assert "pip install stellwerk-platform" in shown


@pytest.mark.parametrize("words", [("up",), ("up", "--runtimes", "2"), ("local", "init-secrets")])
def test_up_without_the_platform_says_in_one_sentence_what_to_install(
    sdk_environment: Path, foreign_project: Path, words: tuple[str, ...]
) -> None:
    done = _run([sdk_environment / "bin" / "stellwerk", *words], foreign_project)

    assert done.returncode == 1
    assert done.stderr == (
        f"Error: `stellwerk {words[0]}` runs the platform, which is not installed here:"
        " pip install stellwerk-platform\n"
    )


def test_a_model_whose_library_is_missing_says_which_extra_to_install(
    sdk_environment: Path, foreign_project: Path
) -> None:
    (foreign_project / "model.onnx").write_bytes(b"")
    stellwerk = sdk_environment / "bin" / "stellwerk"

    done = _run(
        [stellwerk, "--url", "http://127.0.0.1:9", "models", "put", "model.onnx", "m"],
        foreign_project,
    )

    assert done.returncode == 1
    assert done.stderr == (
        "error: this needs the package onnxruntime: pip install 'stellwerk[onnx]'\n"
    )


def test_every_service_is_imported_from_the_platforms_wheel(platform_folder: Path) -> None:
    done = _printed(
        [sys.executable, "-P", "-c", SERVICES], Path("/"), PYTHONPATH=str(platform_folder)
    )

    where, comments = json.loads(done)
    assert where.startswith(str(platform_folder))
    # The OpenAPI document is made from the comments of the protos.
    assert comments > 100


def test_up_of_the_platform_works_in_a_project_with_services_of_its_own(
    platform_folder: Path, foreign_project: Path
) -> None:
    command = [sys.executable, platform_folder / "bin" / "stellwerk", "up", "--help"]

    assert "--runtimes" in _printed(command, foreign_project, PYTHONPATH=str(platform_folder))


def test_no_test_and_no_tool_is_in_the_wheels(platform_folder: Path) -> None:
    names = {path.name for path in platform_folder.iterdir() if path.suffix != ".dist-info"}

    assert names == {"services", "stellwerk", "bin"}


def test_the_platform_requires_the_sdk_of_its_own_version() -> None:
    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    platform = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert sdk["version"] == platform["version"]
    assert f"stellwerk=={sdk['version']}" in platform["dependencies"]


def test_a_triton_client_fits_into_the_same_process() -> None:
    # Both register a contract named inference.GRPCInferenceService; protobuf allows one of them.
    code = (
        "import sys, tritonclient.grpc, stellwerk.client as sdk;"
        "sdk.connect('grpc://127.0.0.1:9').close(); sdk.connect('http://127.0.0.1:9').close();"
        "print('stellwerk.inference.v2' in sys.modules)"
    )

    said = _printed([sys.executable, "-c", code], ROOT, PYTHONPATH=os.pathsep.join(sys.path))

    assert said == "False\n"
