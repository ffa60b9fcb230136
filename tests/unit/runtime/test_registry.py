"""Which formats a runtime offers, and that those which run code are off unless it was started for
them.
"""

from __future__ import annotations

import pickle
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.runtime.formats import registry
from services.runtime.formats.onnx.plugin import OnnxFormat
from services.runtime.formats.pickled.plugin import PickleFormat
from services.runtime.formats.port import FormatSettings
from stellwerk.wire.errors import Corrupt, RequirementUnmet, UnsafeFormat
from tests.fakes import models


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = info


def test_every_declared_format_loads_here() -> None:
    formats = registry.load_formats(FormatSettings(), allow_unsafe=False, log=Lines())

    names = [item.name for item in formats.usable]
    assert names == ["onnx", "skops", "torch_export", "torch_safetensors"]
    assert {name for item in formats.usable for name in item.frameworks()} >= {
        "scikit-learn",
        "onnxruntime",
        "torch",
    }


def test_formats_that_run_code_need_the_setting() -> None:
    pickles = PickleFormat(FormatSettings())

    with pytest.raises(UnsafeFormat, match="not started to allow"):
        registry.Formats([pickles], allow_unsafe=False).find("pickle")
    assert registry.Formats([pickles], allow_unsafe=True).find("pickle") is pickles


def test_a_format_that_is_not_here_is_a_requirement_unmet() -> None:
    with pytest.raises(RequirementUnmet, match="cobol"):
        registry.Formats([], allow_unsafe=True).find("cobol")


@pytest.mark.parametrize(
    ("value", "event"), [("no_such_library:Format", "format_left_out"), ("os:sep", "format_broken")]
)
def test_a_format_that_cannot_be_imported_is_left_out_with_one_line(value: str, event: str) -> None:
    log = Lines()

    loaded = registry._construct(
        EntryPoint("strange", value, registry.GROUP), FormatSettings(), log
    )

    assert loaded is None
    assert [line for line, _ in log.lines] == [event]


def test_of_two_formats_with_one_name_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second_onnx.py").write_text(
        "class Format:\n    name = 'onnx'\n    runs_code = False\n"
        "    def __init__(self, settings): ...\n"
    )
    installed = tmp_path / "second_onnx-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: second-onnx\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\nonnx_too = second_onnx:Format\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    log = Lines()

    formats = registry.load_formats(FormatSettings(), allow_unsafe=False, log=log)

    assert type(formats.find("onnx")) is OnnxFormat
    assert ("format_broken", {"format": "onnx_too", "error": "its name is taken"}) in log.lines


def test_an_allowed_pickle_answers(tmp_path: Path) -> None:
    pipeline, features, _ = models.iris_pipeline()
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(pipeline))
    model = PickleFormat(FormatSettings()).load(path, models.version("pickle"), "auto")

    np.testing.assert_array_equal(
        model.call("predict", {"X": features})["predict"], pipeline.predict(features)
    )


def test_a_broken_pickle_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x05nonsense")

    with pytest.raises(Corrupt):
        PickleFormat(FormatSettings()).load(path, models.version("pickle"), "auto")
