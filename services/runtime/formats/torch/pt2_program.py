"""PyTorch programs saved by torch.export (`.pt2`), loaded only after pt2_guard found no way for
them to run code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2

from services.runtime.formats.port import signatures
from services.runtime.formats.torch import devices as torch_devices
from services.runtime.formats.torch import pt2_guard
from services.runtime.formats.torch.module import TorchModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt


def load(path: Path, version: repository_pb2.ModelVersion, device: str, threads: int) -> TorchModel:
    """Loads the program and moves it to the device. Raises UnsafeFormat, Corrupt,
    RequirementUnmet.
    """
    target = torch_devices.choose(device)
    with torch_devices.LOADING:
        module = _load_module(path, target)
    return TorchModel(
        module,
        signatures(version),
        memory_bytes=torch_devices.footprint(module),
        device=target,
        threads=threads,
    )


def _load_module(path: Path, target: torch.device) -> torch.nn.Module:
    with path.open("rb") as file:
        pt2_guard.check(file)
        file.seek(0)
        try:
            # Not torch.export.load: on an error that one falls back to reading the file in an older
            # way.
            program = load_pt2(file).exported_programs["model"]
        except MemoryError:
            raise
        except Exception as exc:
            raise Corrupt(
                "torch cannot load the artifact; export the model again with torch.export.save"
            ) from exc
    if target.type != "cpu":
        # The device is written into the graph's own nodes too, so moving the weights alone is not
        # enough.
        program = move_to_device_pass(program, target)
    # Without guards torch builds no Python source out of strings of the archive.
    module: torch.nn.Module = program.module(check_guards=False)
    return module
