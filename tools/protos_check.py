"""Checks the contract without the network: buf's lint, buf's breaking-change rules, and
`generated/` being fresh.

buf is given a descriptor set, not the sources: the google/api files that ours import come with a
Python package, where buf would not look. `--write-baseline` makes the present contract the one that
later changes are held against.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it also runs as a script

from tools import protos

CONFIG = protos.ROOT / "buf.yaml"
BASELINE = protos.PROTOS / "baseline.binpb"
BUF = Path(sys.executable).parent / "buf"
# In buf's image format a file carries field 8042, an extension whose field 1 says that it is only
# an import, which lint and breaking pass over: key 8042 length-delimited, two bytes, key 1 varint,
# true.
IS_IMPORT = bytes.fromhex("d2f603020801")
LIBRARY_PACKAGES = ("google/",)


def write_image(target: Path, sources: Path = protos.PROTOS) -> None:
    """Compiles the sources with their comments into a buf image whose library files are marked as
    imports.
    """
    protos.compile_protos(
        sources, f"--descriptor_set_out={target}", "--include_imports", "--include_source_info"
    )
    image = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in image.file:
        if file.name.startswith(LIBRARY_PACKAGES):
            file.MergeFromString(IS_IMPORT)
    target.write_bytes(image.SerializeToString(deterministic=True))


def write_baseline(target: Path = BASELINE, sources: Path = protos.PROTOS) -> None:
    """Keeps the present contract, without comments, as what later ones must not break."""
    write_image(target, sources)
    image = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in image.file:
        file.ClearField("source_code_info")
    target.write_bytes(image.SerializeToString(deterministic=True))


def _buf(*arguments: str) -> list[str]:
    """Buf's findings, one a line; raises if it could not do its work."""
    done = subprocess.run([str(BUF), *arguments], capture_output=True, text=True, check=False)
    findings = done.stdout.splitlines()
    if done.returncode != 0 and not findings:
        raise RuntimeError(f"buf {arguments[0]} failed: {done.stderr.strip()}")
    return findings


def lint(image: Path, config: Path = CONFIG) -> list[str]:
    """Violations of the style rules and missing comments."""
    return _buf("lint", str(image), "--config", str(config))


def breaking(image: Path, baseline: Path = BASELINE, config: Path = CONFIG) -> list[str]:
    """Changes since the baseline that would break a client that exists."""
    return _buf("breaking", str(image), "--against", str(baseline), "--config", str(config))


def problems(
    sources: Path = protos.PROTOS, generated: Path = protos.GENERATED, baseline: Path = BASELINE
) -> list[str]:
    """Everything that is wrong with a contract; raises tools.protos.Uncompilable if it is no
    contract at all.
    """
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "image.binpb"
        write_image(image, sources)
        found = [f"lint: {line}" for line in lint(image)]
        found += [f"breaking: {line}" for line in breaking(image, baseline)]
    return found + [
        f"generated/ is stale, run `make protos`: {name}"
        for name in protos.stale(sources, generated)
    ]


def main() -> None:
    if "--write-baseline" in sys.argv:
        write_baseline()
        print(f"wrote {BASELINE.relative_to(protos.ROOT)}")
        return
    if found := problems():
        raise SystemExit("\n".join(found))
    print("the contract passes lint, breaks nothing, and generated/ is fresh")


if __name__ == "__main__":
    main()
