"""Stores the conformance models in a Stellwerk platform, through its public SDK."""

from __future__ import annotations

from collections.abc import Callable

from stellwerk.client import connect
from stellwerk.client.errors import ModelNotFound
from stellwerk.conformance.models import MODELS, onnx_graphs


def prepare(url: str, token: str | None, told: Callable[[str, bool], None] = lambda name, stored: None) -> None:
    """Stores each model that is not there yet; `told` hears of each, and whether it was stored now.

    The token needs the permission models.write. Raises the platform's errors.
    """
    with connect(url, token, timeout=60) as client:
        for key, graph in onnx_graphs.graphs().items():
            name = MODELS[key].name
            try:
                client.models.info(name)
                told(name, False)
            except ModelNotFound:
                client.models.put(graph, name)
                told(name, True)
