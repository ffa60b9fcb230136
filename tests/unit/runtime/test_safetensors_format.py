"""PyTorch weights in safetensors files fill a declared module, and nothing but an allowed one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from services.runtime.formats.port import FormatSettings
from services.runtime.formats.torch.plugin import TorchSafetensorsFormat
from stellwerk.wire.errors import Corrupt, InvalidInput, UnsafeFormat
from tests.fakes import models

SAFETENSORS = TorchSafetensorsFormat(FormatSettings())


def weights(tmp_path: Path, module: torch.nn.Module) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(module.state_dict(), path)
    return path


def test_safetensors_fill_a_declared_module(tmp_path: Path) -> None:
    linear = torch.nn.Linear(4, 2)
    version = models.version(
        "torch_safetensors",
        module="torch.nn:Linear",
        kwargs='{"in_features": 4, "out_features": 2}',
    )
    model = SAFETENSORS.load(weights(tmp_path, linear), version, "auto")
    rows = np.ones((3, 4), np.float32)

    answer = model.call("predict", {"x": rows})["output_0"]

    np.testing.assert_allclose(answer, linear(torch.tensor(rows)).detach().numpy(), atol=1e-6)


def test_safetensors_fill_declared_layers(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).eval()
    layers = json.dumps(
        [
            ["Linear", {"in_features": 4, "out_features": 3}],
            ["ReLU", {}],
            ["Linear", {"in_features": 3, "out_features": 1}],
        ]
    )
    model = SAFETENSORS.load(
        weights(tmp_path, net), models.version("torch_safetensors", layers=layers), "cpu"
    )
    rows = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)

    np.testing.assert_allclose(
        model.call("predict", {"x": rows})["output_0"],
        net(torch.tensor(rows)).detach().numpy(),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "module",
    ["os:system", "torch.nnx:Linear", "torch.hub:load", "torch:load", "torch.nn:Parameter"],
)
def test_a_module_outside_of_the_allowlist_is_refused(tmp_path: Path, module: str) -> None:
    with pytest.raises(UnsafeFormat):
        SAFETENSORS.load(
            weights(tmp_path, torch.nn.Linear(1, 1)),
            models.version("torch_safetensors", module=module),
            "cpu",
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"module": "torch.nn:Nothing"},
        {"module": "torch.nn:Linear", "kwargs": "{"},
        {"module": "torch.nn:Linear", "kwargs": "[]"},
        {"module": "torch.nn:Linear", "kwargs": '{"wrong": 1}'},
        {"module": "torch.nn:Linear", "kwargs": '{"in_features": 9, "out_features": 2}'},
        {"layers": '[["Parameter", {}]]'},
        {"layers": '["Linear"]'},
    ],
)
def test_nonsense_declarations_are_the_callers_fault(
    tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        SAFETENSORS.load(
            weights(tmp_path, torch.nn.Linear(4, 2)),
            models.version("torch_safetensors", **options),
            "cpu",
        )


def test_a_pickled_checkpoint_is_not_taken_for_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(torch.nn.Linear(1, 1).state_dict(), path)
    options = {"module": "torch.nn:Linear", "kwargs": '{"in_features": 1, "out_features": 1}'}

    with pytest.raises(Corrupt):
        SAFETENSORS.load(path, models.version("torch_safetensors", **options), "cpu")
