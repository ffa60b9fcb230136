"""Loads PyTorch weights from safetensors files into a declared module. The artifact holds numbers
only; the module is an allowed, installed one or a list of torch.nn layers.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from services.runtime.formats.port import FormatSettings, signatures
from services.runtime.formats.torch import devices
from services.runtime.formats.torch.model import TorchModel
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.wire.errors import Corrupt, InvalidInput, UnsafeFormat


def load(
    path: Path, version: repository_pb2.ModelVersion, device: str, settings: FormatSettings
) -> TorchModel:
    """Returns the declared module with the weights of the file, which must fit it exactly.

    `format_options` are {"module": "torch.nn:Linear", "kwargs": "{...}"}, or
    {"layers": '[["Linear", {...}], ["ReLU", {}]]'}. Raises Corrupt for another kind of file,
    InvalidInput for weights that do not fit, RequirementUnmet without the device, and what `build`
    raises.
    """
    target = devices.choose(device)
    with devices.LOADING:
        module = build(version.format_options, settings.torch_modules)
        try:
            weights = load_file(path)
        except safetensors.SafetensorError as exc:
            raise Corrupt(
                "the artifact is not a safetensors file; store the weights again"
            ) from exc
        try:
            module.load_state_dict(weights)
        except RuntimeError as exc:
            raise InvalidInput(
                "the weights do not fit the declared module; check format_options"
            ) from exc
        module.to(target).eval()
    return TorchModel(
        module,
        signatures(version),
        memory_bytes=devices.footprint(module),
        device=target,
        threads=settings.threads,
    )


def build(options: Mapping[str, str], allowed: Sequence[str]) -> torch.nn.Module:
    """Returns the module that `format_options` declare, with weights of its own.

    Raises UnsafeFormat unless the module's name begins with one of `allowed`, InvalidInput for
    options that make no module.
    """
    if "layers" in options:
        return torch.nn.Sequential(
            *[_layer(entry) for entry in _parse(options["layers"], "layers", list)]
        )
    if "module" not in options:
        raise InvalidInput(
            "safetensors weights need format_options 'module' or 'layers'", field="format_options"
        )
    name, _, attribute = options["module"].partition(":")
    if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed):
        raise UnsafeFormat(
            f"the module '{name[:128]}' is not one that this runtime imports; allowed are"
            f" {', '.join(allowed)}",
            module=name[:128],
        )
    try:
        found = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError) as exc:
        raise InvalidInput(
            f"there is no '{options['module'][:128]}' on this runtime", field="module"
        ) from exc
    if (
        not (isinstance(found, type) and issubclass(found, torch.nn.Module))
        and name.split(".")[0] == "torch"
    ):
        raise UnsafeFormat(
            f"'{options['module'][:128]}' is not a module class", module=options["module"][:128]
        )
    return _construct(found, _parse(options.get("kwargs", "{}"), "kwargs", dict), options["module"])


def _layer(entry: Any) -> torch.nn.Module:
    if not (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], dict)
    ):
        raise InvalidInput(
            'layers is a list of pairs such as ["Linear", {"in_features": 4}]', field="layers"
        )
    name, kwargs = entry
    found = getattr(torch.nn, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise InvalidInput(f"torch.nn has no layer '{name[:64]}'", field="layers")
    return _construct(found, kwargs, name)


def _construct(found: Any, kwargs: dict[str, Any], name: str) -> torch.nn.Module:
    try:
        module = found(**kwargs)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise InvalidInput(
            f"'{name[:128]}' does not take these arguments", field="format_options"
        ) from exc
    if not isinstance(module, torch.nn.Module):
        raise InvalidInput(f"'{name[:128]}' does not make a torch module", field="format_options")
    return module


def _parse(text: str, field: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"format_options '{field}' must be JSON", field=field) from exc
    if not isinstance(value, kind):
        raise InvalidInput(f"format_options '{field}' must be a JSON {kind.__name__}", field=field)
    return value
