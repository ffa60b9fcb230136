"""`stellwerk predict`: rows from a file, standard input or the command line; answers as lines or
JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stellwerk.client.cli.context import Globals, complete_model


def predict(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="The model, as iris or bucket/iris.", autocompletion=complete_model),
    ],
    rows: Annotated[
        str | None, typer.Argument(help="The rows as JSON, such as [[5.1, 3.5, 1.4, 0.2]].")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", help="A .json, .csv or .npy file, or - for JSON on standard input."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="The model's method, such as predict_proba.")
    ] = "predict",
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="A version's number.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", help="An alias, such as production.")
    ] = None,
) -> None:
    """Call a model."""
    if (rows is None) == (input is None):
        raise typer.BadParameter("give the rows as JSON, or a file with --input", param_hint="ROWS")
    data = parse_json(rows) if rows is not None else read(str(input))
    options = Globals.of(ctx)
    answer = options.client.runtime.model(name, version=version, alias=alias).call(
        data, method=method
    )
    described = {
        "predictions": answer.value,
        "model_version": answer.model_version,
        "runtime": answer.runtime,
    }
    options.output.show(described, lambda: _print_lines(answer.value))


def parse_json(text: str) -> Any:
    """Nested lists, or an object of these by input name. Raises BadParameter for anything else."""
    try:
        data = json.loads(text)
    except ValueError as exc:
        raise typer.BadParameter(f"this is no JSON: {exc}", param_hint="ROWS") from exc
    if not isinstance(data, list | dict):
        raise typer.BadParameter(
            "give a list of rows, or an object with a list for each input", param_hint="ROWS"
        )
    return data


def read(source: str) -> Any:
    """The data in a file, by its ending. Raises BadParameter if it cannot be read."""
    if source == "-":
        return parse_json(sys.stdin.read())
    path = Path(source)
    try:
        if path.suffix == ".npy":
            import numpy as np

            return np.load(path, allow_pickle=False)
        if path.suffix == ".csv":
            return _read_csv(path)
        return parse_json(path.read_text())
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(
            f"{source} cannot be read as data: {exc}", param_hint="--input"
        ) from exc


def _read_csv(path: Path) -> Any:
    """With a header a table with named columns, else plain rows of numbers."""
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


def _print_lines(value: Any) -> None:
    if isinstance(value, dict):
        for name, array in value.items():
            typer.echo(f"# {name}")
            _print_lines(array)
        return
    for row in value.tolist() if value.ndim else [value.item()]:
        typer.echo(" ".join(str(cell) for cell in row) if isinstance(row, list) else str(row))
