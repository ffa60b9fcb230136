"""`stellwerk predict`: takes rows from a file, standard input or the command line; prints the
answer as lines or JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from stellwerk.client.cli.context import (
    GlobalOptions,
    alias_option,
    model_argument,
    pass_options,
    version_option,
)
from stellwerk.client.cli.output import Output


@click.command()
@model_argument
@click.argument("rows", required=False)
@click.option(
    "--input",
    "-i",
    "source",
    help="A .json, .csv or .npy file, or - for JSON on standard input.",
)
@click.option(
    "--method",
    default="predict",
    show_default=True,
    help="The model's method, such as predict_proba.",
)
@version_option
@alias_option
@pass_options
def predict(
    options: GlobalOptions,
    name: str,
    rows: str | None,
    source: str | None,
    method: str,
    version: int | None,
    alias: str | None,
) -> None:
    """Call a model.

    ROWS are JSON, such as [[5.1, 3.5, 1.4, 0.2]]; --input takes them from a file.
    """
    if (rows is None) == (source is None):
        both = ", not both" if rows is not None else ""
        raise click.BadParameter(
            f"give the rows as JSON, or a file with --input{both}", param_hint="ROWS"
        )
    data = parse_json(rows) if rows is not None else read(str(source))
    answer = options.client.runtime.model(name, version=version, alias=alias).call(
        data, method=method
    )
    described = {
        "predictions": answer.value,
        "model_version": answer.model_version,
        "runtime": answer.runtime,
    }
    options.output.show(described, lambda: _print_lines(options.output, answer.value))


def parse_json(text: str, hint: str = "ROWS") -> Any:
    """Returns nested lists, or an object of them by input name. Raises BadParameter, which names
    the parameter `hint`, for anything else.
    """
    try:
        data = json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"this is not JSON; write it like [[5.1, 3.5]]: {exc}", param_hint=hint
        ) from exc
    if not isinstance(data, list | dict):
        raise click.BadParameter(
            "give a list of rows, or an object with a list for each input", param_hint=hint
        )
    return data


def read(source: str) -> Any:
    """Returns the data of a file by its ending, of standard input for "-". Raises BadParameter if
    it cannot be read.
    """
    if source == "-":
        return parse_json(sys.stdin.read(), "--input -")
    path = Path(source)
    try:
        if path.suffix == ".npy":
            import numpy as np

            return np.load(path, allow_pickle=False)
        if path.suffix == ".csv":
            return _read_csv(path)
        return parse_json(path.read_text(), f"--input {source}")
    except (OSError, ValueError) as exc:
        raise click.BadParameter(
            f"{source} cannot be read as data: {exc}", param_hint="--input"
        ) from exc


def _read_csv(path: Path) -> Any:
    """Returns a DataFrame if the first line holds names, else an array of numbers, rows ×
    columns.
    """
    import numpy as np

    with path.open() as file:
        first = file.readline().strip().split(",")
    if all(_is_number(cell) for cell in first):
        return np.loadtxt(path, delimiter=",", ndmin=2)
    try:
        import pandas as pd
    except ImportError as exc:
        raise ValueError("a CSV file with a header needs the package pandas") from exc
    return pd.read_csv(path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _print_lines(output: Output, value: Any) -> None:
    if isinstance(value, dict):
        for name, array in value.items():
            output.line(f"# {name}")
            _print_lines(output, array)
        return
    for row in value.tolist() if value.ndim else [value.item()]:
        output.line(" ".join(str(cell) for cell in row) if isinstance(row, list) else str(row))
