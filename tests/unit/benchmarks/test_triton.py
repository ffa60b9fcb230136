"""What is written for Triton, and what its virtual environment is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.triton import IRIS, IRIS_CONFIG, write_model
from benchmarks.venvs import Venv


def test_a_model_of_the_repository_has_a_configuration_and_a_version(tmp_path: Path) -> None:
    version = write_model(tmp_path, "iris", IRIS_CONFIG, IRIS, instances=2)

    config = (tmp_path / "iris" / "config.pbtxt").read_text()
    assert version == tmp_path / "iris" / "1"
    assert (
        config.startswith('name: "iris"\nbackend: "python"\n')
        and "count: 2" in config
        and IRIS_CONFIG in config
    )
    compile((version / "model.py").read_text(), "model.py", "exec")


def test_the_same_model_is_not_written_twice(tmp_path: Path) -> None:
    write_model(tmp_path, "iris", IRIS_CONFIG, IRIS)

    with pytest.raises(FileExistsError):
        write_model(tmp_path, "iris", IRIS_CONFIG, IRIS)


class _Runner:
    """Stands for what runs commands; making an environment makes its folder."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir(exist_ok=True)


def test_a_complete_environment_is_not_made_again(tmp_path: Path) -> None:
    runner = _Runner()
    venv = Venv("peer", ("one==1",), ("two==2",), parent=tmp_path)

    venv.ensure(runner)
    venv.ensure(runner)

    assert [command[1:3] for command in runner.commands] == [
        ["-m", "venv"],
        ["-m", "pip"],
        ["-m", "pip"],
    ]
    assert runner.commands[1][-1] == "one==1" and runner.commands[2][-2:] == ["--no-deps", "two==2"]


def test_an_environment_with_other_pins_is_made_again(tmp_path: Path) -> None:
    Venv("peer", ("one==1",), parent=tmp_path).ensure(_Runner())
    runner = _Runner()

    Venv("peer", ("one==2",), parent=tmp_path).ensure(runner)

    assert runner.commands and (tmp_path / "peer" / "complete").read_text() == "one==2"
