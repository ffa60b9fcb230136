"""The conformance models as a model repository for Triton with its Python backend."""

from __future__ import annotations

from pathlib import Path

from stellwerk.conformance.models.definitions import MODELS, ConformanceModel, Spec

_MODEL = Path(__file__).parent / "recipes" / "triton_model.py"


def write(folder: Path) -> list[str]:
    """Writes MODEL/config.pbtxt and MODEL/1/model.py for each that Triton can have; returns their
    names.
    """
    written = []
    for model in MODELS.values():
        if _possible(model):
            (folder / model.name / "1").mkdir(parents=True, exist_ok=True)
            (folder / model.name / "config.pbtxt").write_text(config(model))
            (folder / model.name / "1" / "model.py").write_text(_MODEL.read_text())
            written.append(model.name)
    return written


def _possible(model: ConformanceModel) -> bool:
    """Returns whether Triton can have the model: it knows no tensors without dimensions."""
    return all(spec.shape for spec in (*model.inputs, *model.outputs))


def config(model: ConformanceModel) -> str:
    """Returns the text of config.pbtxt: no batching, so that dims are whole shapes."""
    lines = [
        f'name: "{model.name}"',
        'backend: "python"',
        "max_batch_size: 0",
        *(_tensor("input", spec) for spec in model.inputs),
        *(_tensor("output", spec) for spec in model.outputs),
        f'parameters {{ key: "behaviour" value {{ string_value: "{model.behaviour}" }} }}',
        "instance_group [ { kind: KIND_CPU count: 1 } ]",
    ]
    if model.decoupled:
        lines.append("model_transaction_policy { decoupled: true }")
    return "\n".join(lines) + "\n"


def _tensor(kind: str, spec: Spec) -> str:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    dims = ", ".join(map(str, spec.shape))
    return f'{kind} {{ name: "{spec.name}" data_type: TYPE_{datatype} dims: [ {dims} ] }}'
