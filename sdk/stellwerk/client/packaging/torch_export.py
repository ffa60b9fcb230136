"""Packages PyTorch modules as torch.export programs (.pt2): the graph and its weights, without the
module's Python code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging import pt2
from stellwerk.client.packaging.artifact import Package


def package(model: Any, folder: Path, *, example: Any = None) -> Package:
    """Writes a program into the folder and returns its package; a module is exported with the
    example. Raises InvalidInput without an example, and if torch.export cannot export the module.
    """
    program = model if isinstance(model, ExportedProgram) else _export(model, example)
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return pt2.package_file(path)


def load(path: Path) -> ExportedProgram:
    """Returns the exported program. Only for files whose maker is trusted. Raises InvalidInput if
    the file is none of a version that this torch knows.
    """
    try:
        # Not torch.export.load: after an error that function reads the file in an older, unsafe
        # way.
        return load_pt2(str(path)).exported_programs["model"]
    except (RuntimeError, ValueError, KeyError) as exc:
        raise InvalidInput(
            "the file is no torch.export program of a version that this torch knows"
        ) from exc


def _export(module: Any, example: Any) -> ExportedProgram:
    if not isinstance(module, torch.nn.Module):
        raise InvalidInput(
            f"a {type(module).__name__} cannot be stored; give a torch.nn.Module or an"
            " ExportedProgram"
        )
    if example is None:
        raise InvalidInput(
            "a torch module is exported by running it; give example=, an input with its batch"
            " dimension"
        )
    inputs = tuple(
        _batch_of_two(part) for part in (example if isinstance(example, tuple) else (example,))
    )
    rows = Dim("rows")
    was_training = module.training
    module.eval()
    try:
        return torch.export.export(module, inputs, dynamic_shapes=[{0: rows} for _ in inputs])
    except Exception as exc:  # the module's own code and torch's compiler may raise anything
        raise InvalidInput(
            "torch.export cannot export this module for batches of any size; "
            "export it yourself and store the ExportedProgram"
        ) from exc
    finally:
        module.train(was_training)


def _batch_of_two(part: Any) -> torch.Tensor:
    """Returns the example with two rows at least: torch.export takes a dimension of 1 for fixed."""
    tensor = torch.as_tensor(part)
    if tensor.ndim == 0:
        raise InvalidInput("the example needs a batch dimension; give a batch of rows")
    return tensor if tensor.shape[0] > 1 else torch.cat([tensor, tensor])
