"""Writes `generated/` from `protos/`; `--check` only says whether it is fresh. `generated/` is never edited by hand."""

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
INCLUDES = [PROTOS, Path(list(google.api.__path__)[0]).parents[1], Path(str(resources.files("grpc_tools") / "_proto"))]


def generate(target: Path) -> None:
    """Runs protoc for every file under `protos/`, and keeps all their descriptors in one set for buf and Envoy."""
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", *(f"-I{path}" for path in INCLUDES)]
    arguments += [f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"]
    arguments += [f"--descriptor_set_out={target / 'stellwerk.binpb'}", "--include_imports", *files]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


def differences(fresh: Path, kept: Path) -> list[str]:
    """Relative paths that differ between two generated trees."""
    names = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    names |= {
        path.relative_to(kept) for path in kept.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        str(name)
        for name in names
        if not ((fresh / name).is_file() and (kept / name).is_file() and filecmp.cmp(fresh / name, kept / name, False))
    )


def main() -> None:
    if "--check" not in sys.argv:
        GENERATED.mkdir(exist_ok=True)
        for stale in [*GENERATED.rglob("*_pb2*.py*"), *GENERATED.rglob("*.binpb")]:
            stale.unlink()
        generate(GENERATED)
        print(f"wrote {sum(1 for _ in GENERATED.rglob('*_pb2.py'))} modules to generated/")
        return
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        stale_files = differences(Path(directory), GENERATED)
    if stale_files:
        raise SystemExit("generated/ is stale, run `make protos`: " + ", ".join(stale_files))
    print("generated/ is fresh")


if __name__ == "__main__":
    main()
