"""Loads PyTorch programs from `.pt2` files, after the guard found no way for them to run code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2

from services.runtime.formats.port import signatures
from services.runtime.formats.torch import devices, export_guard
from services.runtime.formats.torch.model import TorchModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt


def load(path: Path, version: repository_pb2.ModelVersion, device: str, threads: int) -> TorchModel:
    """Returns the program on the device; each call may use `threads` threads.

    Raises UnsafeFormat as the guard does, Corrupt for what torch cannot load, RequirementUnmet
    without the device.
    """
    target = devices.choose(device)
    with devices.LOADING:
        module = _load_module(path, target)
    return TorchModel(
        module,
        signatures(version),
        memory_bytes=devices.footprint(module),
        device=target,
        threads=threads,
    )


def _load_module(path: Path, target: torch.device) -> torch.nn.Module:
    with path.open("rb") as file:
        export_guard.check(file)
        file.seek(0)
        try:
            # Not torch.export.load, which after an error reads the file in an older, unsafe way.
            program = load_pt2(file).exported_programs["model"]
        except MemoryError:
            raise
        except Exception as exc:
            raise Corrupt(
                "torch cannot load the artifact; export the model again with torch.export.save"
            ) from exc
    if target.type != "cpu":
        # Nodes of the graph name the device too, so moving the weights is not enough.
        program = move_to_device_pass(program, target)
    # Without guards, torch builds no Python source out of the archive's strings.
    module: torch.nn.Module = program.module(check_guards=False)
    return module
