"""The conformance models as a folder that `mlserver start` serves: one custom runtime, one settings
file a model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stellwerk.conformance.models.definitions import MODELS, ConformanceModel, Spec

_RUNTIME = Path(__file__).parent / "recipes" / "mlserver_runtime.py"
_MODULE = "conformance_runtime"


def write(folder: Path) -> list[str]:
    """Writes MODEL/model-settings.json and the runtime beside it for each model; returns their
    names.
    """
    for model in MODELS.values():
        (folder / model.name).mkdir(parents=True, exist_ok=True)
        (folder / model.name / "model-settings.json").write_text(
            json.dumps(settings(model), indent=2) + "\n"
        )
        (folder / model.name / f"{_MODULE}.py").write_text(_RUNTIME.read_text())
    return [model.name for model in MODELS.values()]


def settings(model: ConformanceModel) -> dict[str, Any]:
    """Returns the content of model-settings.json."""
    return {
        "name": model.name,
        "implementation": f"{_MODULE}.ConformanceRuntime",
        "platform": "conformance_v1",
        "inputs": [_tensor(spec) for spec in model.inputs],
        "outputs": [_tensor(spec) for spec in model.outputs],
        "parameters": {"version": "1", "extra": {"behaviour": str(model.behaviour)}},
    }


def _tensor(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
