"""Exported PyTorch programs answer as the local model does, and run no code."""

from __future__ import annotations

import gc
import io
import json
import pickle
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.runtime.formats.port import FormatSettings
from services.runtime.formats.torch import devices as torch_devices
from services.runtime.formats.torch.plugin import TorchExportFormat
from stellwerk.wire.errors import Corrupt, RequirementUnmet, UnsafeFormat
from tests.fakes import models

EXPORT = TorchExportFormat(FormatSettings())
IMAGES = models.method(
    "predict", [models.spec("images", "FP32", -1, 1, 8, 8)], [models.spec("scores", "FP32", -1, 10)]
)


class Digits(torch.nn.Module):
    """A small convolutional net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.out = torch.nn.Linear(4 * 6 * 6, 10)
        self.scale = torch.tensor(2.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(images)))
        return torch.softmax(self.out(hidden.reshape(hidden.shape[0], -1)) * self.scale, dim=1)


class Several(torch.nn.Module):
    """Two inputs, a mapping of answers."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left + right, "half": (left / 2).to(torch.bfloat16)}


@pytest.fixture(scope="module")
def net() -> Digits:
    torch.manual_seed(7)
    return Digits().eval()


@pytest.fixture(scope="module")
def exported(net: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.pt2"
    rows = torch.export.Dim("rows", min=1, max=1024)
    program = torch.export.export(
        net, (torch.randn(2, 1, 8, 8),), dynamic_shapes={"images": {0: rows}}
    )
    torch.export.save(program, path)
    return path


def test_an_exported_net_answers_as_the_local_one(net: Digits, exported: Path) -> None:
    model = EXPORT.load(exported, models.version("torch_export", IMAGES), "auto")
    images = np.random.default_rng(1).normal(size=(5, 1, 8, 8)).astype(np.float32)
    images.flags.writeable = False

    answer = model.call("predict", {"images": images})

    with torch.no_grad():
        np.testing.assert_allclose(answer["scores"], net(torch.tensor(images)).numpy(), atol=1e-6)
    assert answer["scores"].shape == (5, 10)
    assert model.memory_bytes > 4 * (144 * 10)


def test_a_closed_program_has_let_its_weights_go_without_a_collection(exported: Path) -> None:
    model = EXPORT.load(exported, models.version("torch_export", IMAGES), "cpu")
    weights = [weakref.ref(weight.untyped_storage()) for weight in model._module.parameters()]  # type: ignore[union-attr]
    assert weights and all(weight() is not None for weight in weights)
    gc.disable()
    try:
        model.close()

        assert [weight() for weight in weights] == [None] * len(weights)
    finally:
        gc.enable()


def test_outputs_without_a_signature_are_numbered(exported: Path) -> None:
    model = EXPORT.load(exported, models.version("torch_export"), "cpu")

    assert list(model.call("predict", {"x": np.zeros((1, 1, 8, 8), np.float32)})) == ["output_0"]


def test_inputs_are_given_in_the_signatures_order_and_a_mapping_names_its_outputs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "several.pt2"
    torch.export.save(torch.export.export(Several(), (torch.ones(3), torch.ones(3))), path)
    signature = models.method(
        "predict", [models.spec("left", "FP32", 3), models.spec("right", "FP32", 3)], []
    )
    model = EXPORT.load(path, models.version("torch_export", signature), "cpu")

    answer = model.call(
        "predict", {"right": np.zeros(3, np.float32), "left": np.full(3, 4, np.float32)}
    )

    np.testing.assert_array_equal(answer["half"], np.full(3, 2, np.float32))
    assert answer["half"].dtype == np.float32
    np.testing.assert_array_equal(answer["sum"], [4, 4, 4])


def test_declared_names_go_before_those_of_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "several.pt2"
    torch.export.save(torch.export.export(Several(), (torch.ones(3), torch.ones(3))), path)
    inputs = [models.spec("left", "FP32", 3), models.spec("right", "FP32", 3)]
    outputs = [models.spec("output_0", "FP32", 3), models.spec("output_1", "BF16", 3)]
    model = EXPORT.load(
        path, models.version("torch_export", models.method("predict", inputs, outputs)), "cpu"
    )

    answer = model.call(
        "predict", {"left": np.ones(3, np.float32), "right": np.ones(3, np.float32)}
    )

    assert {name: array.tolist() for name, array in answer.items()} == {
        "output_0": [2] * 3,
        "output_1": [0.5] * 3,
    }


def test_bfloat16_goes_in_as_declared(tmp_path: Path) -> None:
    path = tmp_path / "half.pt2"
    torch.export.save(
        torch.export.export(torch.nn.ReLU(), (torch.ones(3, dtype=torch.bfloat16),)), path
    )
    signature = models.method("predict", [models.spec("x", "BF16", 3)], [])
    model = EXPORT.load(path, models.version("torch_export", signature), "cpu")

    assert model.call("predict", {"x": np.array([-1, 0, 2], np.float32)})["output_0"].tolist() == [
        0,
        0,
        2,
    ]


@pytest.mark.parametrize("layer", ["Linear", "LSTM", "MultiheadAttention", "LayerNorm"])
def test_the_guard_lets_ordinary_layers_pass(tmp_path: Path, layer: str) -> None:
    made: dict[str, Callable[[], torch.nn.Module]] = {
        "Linear": lambda: torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Dropout()
        ),
        "LSTM": lambda: torch.nn.LSTM(8, 4, batch_first=True),
        "MultiheadAttention": lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        "LayerNorm": lambda: torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Softmax(-1)),
    }
    path = tmp_path / "layer.pt2"
    given = torch.randn(3, 5, 8)
    module = made[layer]().eval()
    torch.export.save(
        torch.export.export(module, (given,), dynamic_shapes=({0: torch.export.Dim.AUTO},)), path
    )
    model = EXPORT.load(path, models.version("torch_export"), "cpu")

    answer = model.call("predict", {"x": given.numpy()})["output_0"]

    expected = module(given)
    first = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(answer, first.detach().numpy(), atol=1e-5)


def rewrite(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], **added: bytes
) -> Path:
    """The archive with each member changed, as an attacker would write it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name.removeprefix(f"{root}/"), old.read(name)))
        for name, data in added.items():
            new.writestr(f"{root}/{name}", data)
    return target


def in_program(*replacements: tuple[str, str]) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != "models/model.json":
            return data
        text = data.decode()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        json.loads(text)
        return text.encode()

    return change


class Payload:
    """Unpickling one creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return open, (str(self.canary), "w")


def test_the_rewriting_itself_keeps_an_archive_loadable(exported: Path, tmp_path: Path) -> None:
    path = rewrite(exported, tmp_path / "same.pt2", lambda name, data: data)

    assert EXPORT.load(path, models.version("torch_export"), "cpu").device == "cpu"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"torch.ops.aten.relu.default"', '"torch.os.system"'),
        ('"torch.ops.aten.relu.default"', '"torch.ops.aten.save"'),
        ('"torch.ops.aten.relu.default"', '"torch.ops.aten.from_file.default"'),
        ('"torch.ops.aten.relu.default"', '"_operator.methodcaller"'),
        ('"name": "relu"', "\"name\": \"relu = __import__('os').system('id')\""),
        ('"forward_arg_names": ["images"]', '"forward_arg_names": ["images=print(1)"]'),
        ('"as_expr": {"expr_str": "Symbol(', '"as_expr": {"expr_str": "print(1) or Symbol('),
        ('{"as_tensor": {"name": "relu"}}', '{"as_operator": "torch.os.system"}'),
        (
            '{"as_tensor": {"name": "relu"}}',
            '{"as_custom_obj": {"name": "relu", "class_fqn": "any.Class"}}',
        ),
        ('\\"context\\": \\"[]\\"', '\\"context\\": \\"[\\\\\\"a=print()\\\\\\"]\\"'),
        ('\\"type\\": \\"builtins.tuple\\"', '\\"type\\": \\"collections.defaultdict\\"'),
    ],
)
def test_a_program_that_names_code_is_refused(
    exported: Path, tmp_path: Path, old: str, new: str
) -> None:
    path = rewrite(exported, tmp_path / "bad.pt2", in_program((old, new)))

    with pytest.raises(UnsafeFormat):
        EXPORT.load(path, models.version("torch_export"), "cpu")


def test_pickled_weights_and_sample_inputs_are_refused(exported: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    torch.save(Payload(canary), buffer)

    def pickled_weights(name: str, data: bytes) -> bytes:
        if name == "data/weights/model_weights_config.json":
            return data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return buffer.getvalue() if name == "data/weights/weight_0" else data

    def pickled_inputs(name: str, data: bytes) -> bytes:
        return buffer.getvalue() if name == "data/sample_inputs/model.pt" else data

    for change in (pickled_weights, pickled_inputs):
        path = rewrite(exported, tmp_path / "bad.pt2", change)
        with pytest.raises(UnsafeFormat):
            EXPORT.load(path, models.version("torch_export"), "cpu")

    assert not canary.exists()


@pytest.mark.parametrize(
    "member",
    ["data/aotinductor/model/model.so", "data/constants/opaque_obj_0", "data/weights/model.pt"],
)
def test_members_that_carry_code_are_refused(exported: Path, tmp_path: Path, member: str) -> None:
    path = rewrite(
        exported, tmp_path / "bad.pt2", lambda name, data: data, **{member: pickle.dumps(1)}
    )

    with pytest.raises(UnsafeFormat, match="more than a program"):
        EXPORT.load(path, models.version("torch_export"), "cpu")


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps([1, 2])])
def test_a_file_that_is_no_archive_is_corrupt(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.pt2"
    path.write_bytes(data)

    with pytest.raises(Corrupt):
        EXPORT.load(path, models.version("torch_export"), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_a_requirement_unmet() -> None:
    assert torch_devices.choose("auto").type == "cpu"
    for device in ("cuda", "cuda:0", "tpu"):
        with pytest.raises(RequirementUnmet):
            torch_devices.choose(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_an_exported_net_answers_on_cuda(net: Digits, exported: Path) -> None:
    model = EXPORT.load(exported, models.version("torch_export", IMAGES), "cuda")
    images = np.zeros((2, 1, 8, 8), np.float32)

    answer = model.call("predict", {"images": images})

    assert model.device.startswith("cuda:")
    assert torch_devices.accelerators()[0].memory_bytes > 0
    np.testing.assert_allclose(
        answer["scores"], net(torch.tensor(images)).detach().numpy(), atol=1e-4
    )
