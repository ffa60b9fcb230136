"""Writes `generated/` from `protos/`; `--check` only says whether it is fresh. `generated/` is
never edited by hand.
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

import google.api
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
# google/api/*.proto come with googleapis-common-protos, google/protobuf/*.proto with grpcio-tools.
LIBRARIES = [
    Path(next(iter(google.api.__path__))).parents[1],
    Path(str(resources.files("grpc_tools") / "_proto")),
]


class Uncompilable(Exception):
    """protoc refused the files; it has said why on stderr."""


def compile_protos(protos: Path, *outputs: str) -> None:
    """Runs protoc for every file under `protos` with these output options; raises Uncompilable."""
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    if (
        protoc.main(["protoc", *(f"-I{path}" for path in [protos, *LIBRARIES]), *outputs, *files])
        != 0
    ):
        raise Uncompilable(f"protoc does not accept {protos}")


def generate(target: Path, protos: Path = PROTOS) -> None:
    """Writes Python modules, and all descriptors in one set for the gateway, buf and Envoy."""
    compile_protos(
        protos,
        *(f"--{language}_out={target}" for language in ("python", "pyi", "grpc_python")),
        f"--descriptor_set_out={target / 'stellwerk.binpb'}",
        "--include_imports",
        "--include_source_info",  # the comments, which the gateway's OpenAPI document shows
    )


def differences(fresh: Path, kept: Path) -> list[str]:
    """Relative paths that differ between two generated trees."""
    names = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    names |= {
        path.relative_to(kept)
        for path in kept.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        str(name)
        for name in names
        if not (
            (fresh / name).is_file()
            and (kept / name).is_file()
            and filecmp.cmp(fresh / name, kept / name, False)
        )
    )


def stale(protos: Path = PROTOS, generated: Path = GENERATED) -> list[str]:
    """Files of the generated tree that are not what protoc would write now."""
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory), protos)
        return differences(Path(directory), generated)


def main() -> None:
    if "--check" not in sys.argv:
        GENERATED.mkdir(exist_ok=True)
        for old in [*GENERATED.rglob("*_pb2*.py*"), *GENERATED.rglob("*.binpb")]:
            old.unlink()
        generate(GENERATED)
        print(f"wrote {sum(1 for _ in GENERATED.rglob('*_pb2.py'))} modules to generated/")
        return
    if stale_files := stale():
        raise SystemExit("generated/ is stale, run `make protos`: " + ", ".join(stale_files))
    print("generated/ is fresh")


if __name__ == "__main__":
    main()
