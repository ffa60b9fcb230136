"""Stores the conformance models in a Stellwerk platform, through its public SDK."""

from __future__ import annotations

from collections.abc import Callable

from stellwerk.client import Client, connect
from stellwerk.client.errors import ModelNotFound
from stellwerk.conformance.models import counting, onnx_graphs
from stellwerk.conformance.models.definitions import MODELS

Told = Callable[[str, bool], None]


def prepare(
    url: str, token: str | None, told: Told = lambda name, stored: None, *, pickles: bool = False
) -> None:
    """Stores each model that is not there yet; `told` is called with the name of each, and with
    whether it was stored now.

    The token needs the permission models.write. The decoupled model is stored with `pickles` only:
    it is one, so the token then needs models.write_unsafe, and the runtimes must allow unsafe
    formats. Raises the platform's errors.
    """
    with connect(url, token, timeout=60) as client:
        graphs = {MODELS[key].name: graph for key, graph in onnx_graphs.graphs().items()}
        for name, graph in graphs.items():
            new = not _there(client, name)
            if new:
                client.models.put(graph, name)
            told(name, new)
        name = MODELS["count_up"].name
        if pickles and not _there(client, name):
            client.models.put(
                counting.CountUp(),
                name,
                format="pickle",
                unsafe=True,
                signature=[counting.signature()],
            )
            told(name, True)


def _there(client: Client, name: str) -> bool:
    try:
        client.models.info(name)
    except ModelNotFound:
        return False
    return True
