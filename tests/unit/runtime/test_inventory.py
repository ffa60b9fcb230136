"""What a runtime may use and what it can be told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.config import ConfigError, load
from services.runtime.config import RuntimeSettings, parse_labels
from services.runtime.fleet import inventory
from services.runtime.models.artifacts import FolderClaim
from services.runtime.models.loader import device_for
from stellwerk.repository.v1 import repository_service_pb2 as repository_pb2
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire.names import check_id


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "99900000 100000"}, None),
        ({}, None),
    ],
)
def test_cores_are_bounded_by_the_control_group(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")

    assert inventory.cpu_cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_is_bounded_by_the_control_group(tmp_path: Path, name: str) -> None:
    unbounded = inventory.memory_bytes(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)

    for text, expected in [("104857600", 104857600), ("max", unbounded), (str(1 << 62), unbounded)]:
        (tmp_path / name).write_text(text)
        assert inventory.memory_bytes(tmp_path) == expected


def test_labels_are_pairs() -> None:
    assert parse_labels("zone=west, tier = gold,empty=") == {
        "zone": "west",
        "tier": "gold",
        "empty": "",
    }
    assert parse_labels("") == {}


def test_every_wrong_setting_is_named_at_once() -> None:
    wrong = {
        "STELLWERK_NAME": "not a name",
        "STELLWERK_LABELS": "=zone",
        "STELLWERK_DEVICES": "tpu",
        "STELLWERK_SLOTS": "-1",
    }

    with pytest.raises(ConfigError) as caught:
        load(RuntimeSettings, wrong)

    assert all(variable in str(caught.value) for variable in wrong)


def test_a_name_is_made_up_that_a_resource_may_have() -> None:
    check_id(RuntimeSettings().resource_name.removeprefix("runtimes/"), "runtime")
    assert RuntimeSettings(name="west-1").resource_name == "runtimes/west-1"


@pytest.mark.parametrize(
    ("requires", "preferred", "expected"),
    [
        ({}, "auto", "auto"),
        ({}, "cpu", "cpu"),
        ({"accelerator_count": 1}, "auto", "cuda"),
        ({"accelerator_kind": "cuda"}, "cpu", "cuda"),
        ({"accelerator_count": 1}, "cuda:1", "cuda:1"),
    ],
)
def test_a_required_accelerator_goes_before_the_preference(
    requires: dict[str, object], preferred: str, expected: str
) -> None:
    version = repository_pb2.ModelVersion(requires=requirements_pb2.Requirements(**requires))  # type: ignore[arg-type]

    assert device_for(version, preferred) == expected


async def test_each_process_has_a_folder_of_its_own_and_finds_it_again(tmp_path: Path) -> None:
    first, second = FolderClaim(tmp_path), FolderClaim(tmp_path)
    assert first.path != second.path
    await first.release()

    assert FolderClaim(tmp_path).path == first.path


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_the_runtime_knows_its_formats_without_importing_model_libraries() -> None:
    answer = python(
        "import sys; import services.runtime.main; from services.runtime.formats import port,"
        " registry; found = registry.load_formats(port.FormatSettings(),"
        " allow_unsafe=True, log=None).usable; heavy = {'torch', 'sklearn', 'skops', 'onnxruntime',"
        " 'onnx', 'pandas', 'joblib', 'safetensors'}; print([item.name for item in found],"
        " sorted(heavy & set(sys.modules)))"
    )

    assert answer == "['onnx', 'pickle', 'skops', 'torch_export', 'torch_safetensors'] []"


def test_scikit_learn_models_do_not_bring_torch() -> None:
    answer = python(
        "import sys, services.runtime.formats.sklearn.loader as loading; before = 'torch' in"
        " sys.modules; import torch; import sklearn.externals.array_api_compat.torch; print(before,"
        " loading.is_trusted('sklearn.tree._tree.Tree'))"
    )

    assert answer == "False True"
