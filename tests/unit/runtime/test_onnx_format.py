"""ONNX models: the graph's names and shapes, and nothing outside of the artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.external_data_helper import _get_all_tensors, uses_external_data
from skl2onnx import to_onnx

from services.runtime.formats.onnx import guard as onnx_guard
from services.runtime.formats.onnx.plugin import OnnxFormat
from services.runtime.formats.port import FormatSettings
from stellwerk.wire.errors import Corrupt, InvalidInput, RequirementUnmet, UnsafeFormat
from tests.fakes import models

FORMAT = OnnxFormat(FormatSettings())


def export(path: Path, *, zipmap: bool = False) -> Path:
    pipeline, features, _ = models.iris_pipeline()
    options = {id(pipeline): {"zipmap": zipmap}}
    path.write_bytes(
        to_onnx(pipeline, features[:1].astype(np.float32), options=options).SerializeToString()
    )
    return path


def test_predictions_equal_the_local_models(tmp_path: Path) -> None:
    pipeline, features, _ = models.iris_pipeline()
    model = FORMAT.load(export(tmp_path / "model.onnx"), models.version("onnx"), "auto")

    answer = model.call("predict", {"X": features.astype(np.float32)})

    np.testing.assert_array_equal(answer["label"], pipeline.predict(features))
    np.testing.assert_allclose(answer["probabilities"], pipeline.predict_proba(features), atol=1e-5)
    assert answer["probabilities"].shape == (150, 3)


def test_text_tensors_go_in_and_come_out(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])],
    )
    path = tmp_path / "model.onnx"
    opset = helper.make_opsetid("", 18)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    )
    model = FORMAT.load(path, models.version("onnx"), "cpu")

    answer = model.call("predict", {"x": np.array([b"gr\xc3\xbcn", b"red"], dtype=object)})

    assert list(answer["y"]) == ["grün", "red"]


def test_bytes_that_are_no_text_are_refused_not_altered(tmp_path: Path) -> None:
    path = tmp_path / "echo.onnx"
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in ("X", "Y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["X"], ["Y"])], "echo", text[:1], text[1:]
    )
    opset = [helper.make_opsetid("", 16)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    model = FORMAT.load(path, models.version("onnx"), "auto")

    with pytest.raises(InvalidInput, match="'X' takes text; an element of it is not UTF-8"):
        model.call("predict", {"X": np.array([b"fine", b"\xff"], object)})


def test_an_output_that_is_no_tensor_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="zipmap"):
        FORMAT.load(export(tmp_path / "model.onnx", zipmap=True), models.version("onnx"), "auto")


def test_a_wrong_shape_type_or_name_is_the_callers_fault(tmp_path: Path) -> None:
    model = FORMAT.load(export(tmp_path / "model.onnx"), models.version("onnx"), "auto")

    with pytest.raises(InvalidInput, match="shapes"):
        model.call("predict", {"X": np.zeros((1, 5), np.float32)})
    with pytest.raises(InvalidInput, match=r"tensor\(float\)"):
        model.call("predict", {"X": np.zeros((1, 4))})
    with pytest.raises(InvalidInput, match="the inputs X"):
        model.call("predict", {"Y": np.zeros((1, 4), np.float32)})
    with pytest.raises(InvalidInput, match="'predict'"):
        model.call("fit", {"X": np.zeros((1, 4), np.float32)})


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    weights.external_data.add(key="location", value="secret")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "leak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [weights],
    )
    path = tmp_path / "model.onnx"
    opset = helper.make_opsetid("", 18)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    )

    with pytest.raises(UnsafeFormat, match="other files"):
        FORMAT.load(path, models.version("onnx"), "auto")


def outside(name: str = "w") -> TensorProto:
    """A tensor that says its data lies elsewhere."""
    tensor = TensorProto(
        name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="secret")
    return tensor


def in_a_subgraph(model: onnx.ModelProto) -> None:
    inner = onnx.GraphProto(initializer=[outside()])
    deeper = onnx.NodeProto(op_type="If", attribute=[onnx.AttributeProto(name="a", g=inner)])
    model.graph.node.add(
        attribute=[onnx.AttributeProto(name="b", graphs=[onnx.GraphProto(node=[deeper])])]
    )


def in_a_function(model: onnx.ModelProto) -> None:
    node = onnx.NodeProto(attribute=[onnx.AttributeProto(name="value", tensors=[outside()])])
    model.functions.add(name="f", node=[node])


def in_a_functions_default(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", attribute_proto=[onnx.AttributeProto(name="value", t=outside())])


def in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=outside("v"), indices=outside("i"))


def in_the_training_graph(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(outside())


def by_an_address(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="w").external_data.add(
        key="location", value="*/_ORT_MEM_ADDR_/*"
    )


@pytest.mark.parametrize(
    "hide",
    [
        in_a_subgraph,
        in_a_function,
        in_a_functions_default,
        in_a_sparse_tensor,
        in_the_training_graph,
        by_an_address,
    ],
)
def test_a_reference_to_other_data_is_found_wherever_it_is(
    tmp_path: Path, hide: Callable[[Any], None]
) -> None:
    path = export(tmp_path / "model.onnx")
    model = onnx.load(path)
    onnx_guard.check(path)
    hide(model)
    path.write_bytes(model.SerializeToString())

    with pytest.raises(UnsafeFormat, match="other files"):
        onnx_guard.check(path)


@given(data=st.data())
def test_any_damage_to_a_file_is_refused_or_harmless_and_never_another_error(
    data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "damaged.onnx"
    whole = helper.make_model(onnx.GraphProto(initializer=[outside()])).SerializeToString()
    where = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(
        whole[:where]
        + data.draw(st.binary(max_size=8))
        + whole[where + data.draw(st.integers(0, 8)) :]
    )

    try:
        onnx_guard.check(path)
    except (UnsafeFormat, Corrupt):
        return
    # What the guard lets pass is no model for the library either, or one without such a tensor.
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        return
    assert not any(uses_external_data(tensor) for tensor in _get_all_tensors(model))


def test_onnxruntimes_own_format_which_the_guard_does_not_read_is_refused(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        str(export(tmp_path / "model.onnx")), options, providers=["CPUExecutionProvider"]
    )
    assert (tmp_path / "model.ort").read_bytes()[4:8] == b"ORTM"

    with pytest.raises(Corrupt):
        FORMAT.load(tmp_path / "model.ort", models.version("onnx"), "auto")


def test_the_word_location_alone_refuses_nothing(tmp_path: Path) -> None:
    path = export(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.doc_string = "trained at this location"
    path.write_bytes(model.SerializeToString())

    assert FORMAT.load(path, models.version("onnx"), "auto").device == "cpu"


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x07" * 50])
def test_a_broken_artifact_is_corrupt(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)

    with pytest.raises(Corrupt):
        FORMAT.load(path, models.version("onnx"), "auto")


def test_cuda_where_there_is_none_is_a_requirement_unmet(tmp_path: Path) -> None:
    with pytest.raises(RequirementUnmet, match="CUDA"):
        FORMAT.load(export(tmp_path / "model.onnx"), models.version("onnx"), "cuda")
